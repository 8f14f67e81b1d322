import { createHash } from 'node:crypto'
import { guestScripts } from './guest-files.ts'

/** An image that is made at first use. */
export interface BuiltIn {
  readonly name: string
  /** What the guest does unless /data/job says otherwise: see guest/init. */
  readonly job: 'none' | 'write' | 'net'
}

export const BUILT_IN: readonly BuiltIn[] = [
  { name: 'holdfast-tiny', job: 'none' },
  { name: 'holdfast-counter', job: 'write' },
]

/** Raised when the way an image is made changes; the scripts in it count by themselves. */
const LAYOUT = 1

let known: string | undefined

/** Names what images are made by. One of another recipe is made anew; volumes that were filled with it stay as they are. */
export function recipe(): string {
  known ??= `${LAYOUT}-${createHash('sha256').update(guestScripts()).digest('hex').slice(0, 16)}`
  return known
}
