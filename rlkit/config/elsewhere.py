"""What options are called in other libraries, so that who types such a name is told ours.

Several of ours stand for those of different agents; the first that the chosen agent has is meant.
"""

from __future__ import annotations

ELSEWHERE: dict[str, tuple[str, ...]] = {
    name: tuple(ours.split())
    for names, ours in (
        ("n_envs num_envs num_environments envs parallel_envs", "env.lanes"),
        ("env_id env_name environment gym_id task", "env"),
        ("env_kwargs", "env.kwargs"),
        ("frame_skip frameskip action_repeat", "env.skip"),
        ("frame_stack framestack n_stack num_stack", "env.stack"),
        ("max_episode_steps max_ep_len episode_length horizon", "env.time_limit"),
        ("grayscale grey", "env.gray"),
        ("algo algorithm model", "agent"),
        ("timesteps total_timesteps n_timesteps num_timesteps max_steps num_frames", "total_steps"),
        ("learning_rate step_size", "optim.lr"),
        ("actor_learning_rate policy_lr", "agent.actor_lr"),
        ("anneal_lr lr_decay", "optim.lr_schedule"),
        ("max_grad_norm grad_clip gradient_clip clip_grad", "optim.clip_norm"),
        ("optimizer optimizer_class optimiser", "optim.name"),
        ("n_steps num_steps rollout_steps rollout_length rollout_fragment_length", "agent.steps"),
        (
            "batch_size minibatch_size sgd_minibatch_size train_batch_size",
            "agent.minibatch agent.replay.batch",
        ),
        ("n_epochs update_epochs num_epochs num_sgd_iter noptepochs", "agent.epochs"),
        ("gae_lambda lambda lmbda lambda_", "agent.lam"),
        ("discount discount_factor", "agent.gamma"),
        ("clip_range clip_coef clip_param cliprange clip_epsilon", "agent.clip"),
        ("clip_range_vf", "agent.value_clip"),
        ("ent_coef entropy_coeff entropy_weight entropy_bonus", "agent.entropy_coef"),
        ("vf_coef vf_loss_coeff value_loss_coef", "agent.value_coef"),
        ("norm_adv advantage_normalization", "agent.normalize_advantage"),
        ("norm_reward", "agent.normalize_reward"),
        ("norm_obs", "network.normalize"),
        ("buffer_size replay_size memory_size replay_buffer_size", "agent.replay.capacity"),
        ("learning_starts warmup_steps start_steps init_random_steps", "agent.replay.warmup"),
        ("gradient_steps train_freq train_frequency utd_ratio update_every", "agent.replay.ratio"),
        ("target_update_interval target_network_frequency target_update_freq", "agent.target_every"),
        ("polyak", "agent.tau"),
        ("exploration_initial_eps epsilon", "agent.epsilon_start"),
        ("exploration_final_eps", "agent.epsilon_end"),
        ("exploration_fraction", "agent.epsilon_fraction"),
        ("action_noise exploration_noise", "agent.noise_std agent.noise"),
        ("policy_delay policy_frequency", "agent.actor_every"),
        ("net_arch hidden_sizes hidden_dims fcnet_hiddens layers", "network.hidden"),
        ("lstm_hidden_size hidden_size", "network.core_size"),
        ("activation_fn", "network.activation"),
        ("eval_freq eval_interval evaluation_interval", "evaluate.every"),
        ("n_eval_episodes eval_episodes num_eval_episodes", "evaluate.episodes"),
        ("save_freq checkpoint_freq save_interval", "checkpoint.every"),
        ("log_interval log_freq", "log.every"),
        ("record_video capture_video video_freq", "video.every"),
        ("num_workers n_workers num_env_runners num_rollout_workers n_jobs", "env.workers"),
        ("num_threads n_threads torch_threads", "threads"),
        ("random_seed random_state", "seed"),
        ("run_name exp_name experiment_name", "name"),
        ("log_dir logdir save_path output_dir save_dir", "dir"),
    )
    for name in names.split()
}
