import { availableParallelism } from 'node:os'
import { THREADS_MAX } from '#vault/limits.ts'

/** Threads that hash, compress and encrypt: one core is left to those who answer clients. */
export const vaultThreads = (): number =>
  Math.max(1, Math.min(THREADS_MAX, availableParallelism() - 1))
