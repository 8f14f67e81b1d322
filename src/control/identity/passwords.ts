import { hash, verify } from '@node-rs/argon2'
import { randomBytes } from 'node:crypto'
import { Fault, fault } from '#base/fault.ts'

/* Passwords as argon2id hashes. One check takes about 20 ms of one core and 19 MiB: cheap for a login, expensive for a
 * guesser, and few enough of them run at once that guessing does not starve the API. */

export interface Passwords {
  hash(password: string): Promise<string>
  /** False also for an unknown user (`stored` null), after the same work: time tells nothing. */
  verify(stored: string | null, password: string): Promise<boolean>
}

/** Shorter ones are refused when set; longer ones always, since hashing reads all of it. */
export const PASSWORD_CHARACTERS = { least: 8, most: 256 } as const

/** argon2id as OWASP's cheat sheet recommends it for interactive logins. */
const COSTS = { memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const
const AT_ONCE_MAX = 2
const WAITING_MAX = 50

export const LOGINS_BUSY = fault({
  code: 'LOGINS_BUSY',
  retry: 'later',
  text: 'Too many passwords are being checked at this moment.',
  hint: 'Repeat in a second. Tokens and access keys work meanwhile.',
})

export function createPasswords(): Passwords {
  let running = 0
  const waiting: (() => void)[] = []

  async function inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (running >= AT_ONCE_MAX) {
      if (waiting.length >= WAITING_MAX) throw new Fault(LOGINS_BUSY, 'checking a password')
      await new Promise<void>((resolve) => waiting.push(resolve))
    } else running++
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next === undefined) running--
      else next()
    }
  }

  /** Of nothing anybody knows; made once, for checks of users that do not exist. */
  let nobody: Promise<string> | undefined

  return {
    hash: (password) => inTurn(() => hash(password, COSTS)),
    verify: (stored, password) =>
      inTurn(async () => {
        nobody ??= hash(randomBytes(32).toString('hex'), COSTS)
        const reference = stored ?? (await nobody)
        if (password.length > PASSWORD_CHARACTERS.most) return false
        return (await verify(reference, password)) && stored !== null
      }),
  }
}
