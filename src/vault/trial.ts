import { randomBytes } from 'node:crypto'
import type { ObjectStore } from './object-store.ts'

/** Nothing of the vault; one that a killed process has left is overwritten by the next trial. */
const TRIAL_KEY = 'tmp/room'

const PIECE_BYTES = 1024 * 1024

/** Whether the store takes so many MiB just now. Throws what it says otherwise. */
export async function tryRoom(store: ObjectStore, mib: number): Promise<void> {
  // Nothing that a file system compresses or leaves out.
  const piece = randomBytes(PIECE_BYTES)
  const pieces = Array.from({ length: mib }, () => piece)
  await store.put(TRIAL_KEY, pieces)
  await store.delete(TRIAL_KEY)
}
