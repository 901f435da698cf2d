// CartPole steered by a policy in C, from C++17 (rlkit export RUN --format c, where RUN was trained with env=cartpole).
//
//     cmake -B build -DPOLICY=RUN/export && cmake --build build
//     build/cartpole [X SPEED ANGLE TURN]        how the pole begins; prints how many steps it stays up
//
// The physics are Gymnasium's (classic_control/cartpole.py): Euler's method, 0.02 s a step, at most 500 steps.
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "policy.h"

// The policy of one simulation, with its memory.
class Policy {
public:
    Policy() { rlkit_policy_reset(&memory); }

    int act(const std::array<float, RLKIT_OBS_SIZE> &obs) {
        rlkit_action_t action[RLKIT_ACTION_SIZE];
        if (rlkit_policy_act(&memory, obs.data(), action) != RLKIT_OK) throw std::runtime_error("a broken sensor");
        return static_cast<int>(action[0]);
    }

private:
    rlkit_policy_t memory;
};

struct CartPole {
    double x = 0.01, speed = 0, angle = 0.02, turn = 0;

    bool up() const { return std::fabs(x) <= 2.4 && std::fabs(angle) <= 12 * 2 * 3.141592653589793 / 360; }

    std::array<float, RLKIT_OBS_SIZE> seen() const { return {float(x), float(speed), float(angle), float(turn)}; }

    void step(double force) {
        const double gravity = 9.8, total = 1.1, pole = 0.1, half = 0.5, seconds = 0.02;
        const double sine = std::sin(angle), cosine = std::cos(angle);
        const double shared = (force + pole * half * turn * turn * sine) / total;
        const double bend = (gravity * sine - cosine * shared) / (half * (4.0 / 3.0 - pole * cosine * cosine / total));
        const double gain = shared - pole * half * bend * cosine / total;
        x += seconds * speed;
        speed += seconds * gain;
        angle += seconds * turn;
        turn += seconds * bend;
    }
};

int main(int count, char **words) {
    CartPole cart;
    if (count == 5) cart = {std::atof(words[1]), std::atof(words[2]), std::atof(words[3]), std::atof(words[4])};
    Policy policy;
    int steps = 0;
    for (; steps < 500 && cart.up(); ++steps) cart.step(policy.act(cart.seen()) == 1 ? 10.0 : -10.0);
    std::printf("%d steps\n", steps);
    return 0;
}
