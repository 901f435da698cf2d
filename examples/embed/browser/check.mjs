// Plays one episode without a browser, and prints its states and actions as JSON: node check.mjs FOLDER

import { readFile } from "node:fs/promises"
import { join } from "node:path"
import * as ort from "onnxruntime-web"
import { CartPole } from "./cartpole.js"
import { Policy } from "./policy.js"

ort.env.wasm.numThreads = 1
const policy = await Policy.load(ort, async (name) => new Uint8Array(await readFile(join(process.argv[2], name))))
const game = new CartPole()
let state = game.reset([0.01, -0.02, 0.03, 0.04])
const states = [state], actions = []
for (let more = true; more; ) {
  actions.push(await policy.act(state))
  more = game.step(actions.at(-1))
  state = game.state
  states.push(state)
}
console.log(JSON.stringify({ states, actions }))
