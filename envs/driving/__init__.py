"""CarRacing twice: Gymnasium's own, its picture drawn by machine code (`car_racing`), and a batch without Box2D
(`batched`)."""
