/** A belief about our own code. When it is false the process must not go on: continuing on a broken
 *  invariant is how acknowledged data gets lost. Never use it on outside input; refuse that instead. */
export function assert(condition: unknown, belief: string): asserts condition {
  if (!condition) throw new BrokenInvariant(belief)
}

/** Thrown by `assert`. Nobody catches it; the process's last-resort handler logs it and exits. */
export class BrokenInvariant extends Error {
  override readonly name = 'BrokenInvariant'
}

/** Ends a `switch` over a closed union: fails to compile when a case is missing. */
export function unreachable(value: never): never {
  throw new BrokenInvariant(`unexpected value ${JSON.stringify(value)}`)
}
