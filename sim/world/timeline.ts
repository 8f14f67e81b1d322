/**
 * Virtual time: a heap of things to happen. Equal moments happen in the order in which they were planned, so a run is
 * a function of its seed alone. Times are milliseconds of the true (virtual) time that no host can see.
 */
export class Timeline {
  nowMs = 0
  /** Events carried out so far. */
  events = 0
  readonly #times: number[] = []
  readonly #orders: number[] = []
  readonly #actions: (() => void)[] = []
  #order = 0

  /** Plans `action` at `atMs` (now, when that has passed). */
  at(atMs: number, action: () => void): void {
    const times = this.#times
    const orders = this.#orders
    const actions = this.#actions
    const time = atMs > this.nowMs ? atMs : this.nowMs
    const order = this.#order++
    let index = times.length
    times.push(time)
    orders.push(order)
    actions.push(action)
    while (index > 0) {
      const parent = (index - 1) >> 1
      if ((times[parent] as number) <= time) break
      times[index] = times[parent] as number
      orders[index] = orders[parent] as number
      actions[index] = actions[parent] as () => void
      index = parent
    }
    times[index] = time
    orders[index] = order
    actions[index] = action
  }

  after(delayMs: number, action: () => void): void {
    this.at(this.nowMs + delayMs, action)
  }

  /** Carries out the next event. False when nothing is planned before `untilMs`; time then stands there. */
  step(untilMs: number): boolean {
    const first = this.#times[0]
    if (first === undefined || first > untilMs) {
      this.nowMs = untilMs
      return false
    }
    this.nowMs = first
    this.events++
    const action = this.#actions[0] as () => void
    this.#removeFirst()
    action()
    return true
  }

  runUntil(untilMs: number): void {
    while (this.step(untilMs));
  }

  #removeFirst(): void {
    const times = this.#times
    const orders = this.#orders
    const actions = this.#actions
    const time = times.pop() as number
    const order = orders.pop() as number
    const action = actions.pop() as () => void
    const length = times.length
    if (length === 0) return
    let index = 0
    for (;;) {
      let child = 2 * index + 1
      if (child >= length) break
      if (child + 1 < length && this.#before(child + 1, child)) child++
      const childTime = times[child] as number
      if (childTime > time || (childTime === time && (orders[child] as number) > order)) break
      times[index] = childTime
      orders[index] = orders[child] as number
      actions[index] = actions[child] as () => void
      index = child
    }
    times[index] = time
    orders[index] = order
    actions[index] = action
  }

  #before(left: number, right: number): boolean {
    const difference = (this.#times[left] as number) - (this.#times[right] as number)
    if (difference !== 0) return difference < 0
    return (this.#orders[left] as number) < (this.#orders[right] as number)
  }
}
