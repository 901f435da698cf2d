// An exported policy in JavaScript: `ort` is the module onnxruntime-web, `read` hands out a file of the folder.
//
//   const policy = await Policy.load(ort, read)      // read(name) -> Promise<Uint8Array>
//   policy.reset()                                   // before every episode
//   const action = await policy.act([0.1, 0.2, 0.3, 0.4])

export class Policy {
  static async load(ort, read) {
    const info = JSON.parse(new TextDecoder().decode(await read("policy.json")))
    if (info.observation.kind !== "Box" || info.observation.dtype === "uint8" || info.action.kind !== "Discrete")
      throw new Error("this example feeds vectors of floats and reads one choice")
    return new Policy(ort, info, await ort.InferenceSession.create(await read("policy.onnx")))
  }

  constructor(ort, info, session) {
    Object.assign(this, { ort, info, session })
    this.kept = info.memory.filter(({ name }) => info.graphs["policy.onnx"].includes(name))
    this.reset()
  }

  reset() {
    const zeros = (size) => new Float32Array(size)
    this.first = true
    this.memory = {}
    for (const { name, shape, dtype } of this.kept) {
      if (dtype !== "float32") throw new Error(`memory of ${dtype}: this example keeps floats`)
      this.memory[name] = new this.ort.Tensor("float32", zeros(shape.reduce((a, b) => a * b, 1)), [1, ...shape])
    }
  }

  async act(obs) {
    const shape = this.info.observation.shape
    if (obs.length !== shape.reduce((a, b) => a * b, 1) || !obs.every(Number.isFinite))
      throw new Error(`an observation is ${shape.join(" x ")} finite numbers`)
    const found = await this.session.run({
      obs: new this.ort.Tensor("float32", Float32Array.from(obs), [1, ...shape]),
      first: new this.ort.Tensor("bool", Uint8Array.of(this.first), [1]),
      ...this.memory,
    })
    this.first = false
    for (const { name } of this.kept) this.memory[name] = found[name.replace("memory", "memory_out")]
    return Number(found.action.data[0]) + this.info.action.start
  }
}
