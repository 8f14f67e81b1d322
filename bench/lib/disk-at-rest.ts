import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const REST_MS = 300
const REST_LOOK_MS = 50

/** All is written, and what a sync leaves the disk to do is done: of files that were deleted it is told afterwards (discard), which takes it a second or two. */
export async function diskAtRest(): Promise<void> {
  execFileSync('sync')
  let before = ''
  for (let still = 0; still < REST_MS; still += REST_LOOK_MS) {
    const now = readFileSync('/proc/diskstats', 'utf8')
    if (now !== before) still = 0
    before = now
    await sleep(REST_LOOK_MS)
  }
}
