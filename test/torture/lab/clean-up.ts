import { readFile, rm } from 'node:fs/promises'
import { sleep } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import { signalProcess } from '#base/system/process.ts'
import { HOSTS, namespaceOf, removeNetwork } from './network.ts'
import { tryRun } from './run.ts'

/* Puts a lab away, whoever made it and however far it got: its processes are those in its network namespaces, its mounts
 * those below its directory. Nothing is looked for by the name of a program. */

const END_MS = 5_000

/** `keep`: leave the files (not the mounts) for a look at them. */
export async function cleanUp(lab: string, directory: string, keep: boolean): Promise<void> {
  const endMs = systemClock.bootMs() + END_MS
  for (;;) {
    const pids = await processesOf(lab)
    if (pids.length === 0 || systemClock.bootMs() > endMs) break
    for (const pid of pids) {
      signalProcess(pid, 'SIGKILL')
      signalProcess(pid, 'SIGCONT')
    }
    await sleep(systemClock, 50)
  }
  for (const point of await mountsBelow(directory)) await unmount(point)
  await removeNetwork(lab)
  if (!keep) await rm(directory, { recursive: true, force: true })
}

async function processesOf(lab: string): Promise<number[]> {
  const pids: number[] = []
  for (const host of HOSTS) {
    const { out } = await tryRun('ip', ['netns', 'pids', namespaceOf(lab, host)])
    pids.push(
      ...out
        .split('\n')
        .filter((line) => line !== '')
        .map(Number),
    )
  }
  return pids
}

/** Deepest first. */
async function mountsBelow(directory: string): Promise<string[]> {
  const table = await readFile('/proc/self/mounts', 'utf8')
  return table
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((point) => point.startsWith(`${directory}/`))
    .sort((a, b) => b.length - a.length)
}

/** At once, or, when something still holds it, as soon as that lets go. */
export async function unmount(point: string): Promise<void> {
  const { code } = await tryRun('umount', [point])
  if (code !== 0) await tryRun('umount', ['-l', point])
}
