/** So many at a time, the others in the order in which they came. */
export class Turns {
  readonly #atOnceMax: number
  readonly #queue: (() => void)[] = []
  #taken = 0

  constructor(atOnceMax: number) {
    this.#atOnceMax = atOnceMax
  }

  /** Resolves when it is the caller's turn, who gives it back with `give`; rejects with the signal's reason when that comes first. */
  async take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#taken < this.#atOnceMax) {
      this.#taken++
      return
    }
    await new Promise<void>((resolve, reject) => {
      this.#queue.push(resolve)
      const leave = () => {
        const place = this.#queue.indexOf(resolve)
        // With the turn already given, the work ends at once and gives it on.
        if (place < 0) return
        this.#queue.splice(place, 1)
        reject(signal.reason as Error)
      }
      signal.addEventListener('abort', leave, { once: true })
    })
  }

  give(): void {
    const next = this.#queue.shift()
    if (next === undefined) this.#taken--
    else next()
  }
}
