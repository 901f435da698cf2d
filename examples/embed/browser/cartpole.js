// CartPole as Gymnasium has it (classic_control/cartpole.py, Euler's method): Barto, Sutton and Anderson (1983).

const GRAVITY = 9.8, CART = 1.0, POLE = 0.1, HALF = 0.5, FORCE = 10.0, TAU = 0.02
const WIDEST = 2.4, STEEPEST = (12 * 2 * Math.PI) / 360

export class CartPole {
  // state: [position, velocity, angle, angular velocity]
  reset(state = Array.from({ length: 4 }, () => Math.random() * 0.1 - 0.05)) {
    this.state = state
    this.steps = 0
    return state
  }

  // Whether the episode goes on.
  step(action) {
    const [x, v, angle, spin] = this.state
    const force = action === 1 ? FORCE : -FORCE
    const [cos, sin, total] = [Math.cos(angle), Math.sin(angle), CART + POLE]
    const push = (force + POLE * HALF * spin * spin * sin) / total
    const turn = (GRAVITY * sin - cos * push) / (HALF * (4 / 3 - (POLE * cos * cos) / total))
    const speed = push - (POLE * HALF * turn * cos) / total
    this.state = [x + TAU * v, v + TAU * speed, angle + TAU * spin, spin + TAU * turn]
    this.steps += 1
    return Math.abs(this.state[0]) <= WIDEST && Math.abs(this.state[2]) <= STEEPEST && this.steps < 500
  }
}
