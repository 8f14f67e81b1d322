import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { hasCode } from '#base/system/files.ts'
import {
  killAndWait,
  type ProcessFacts,
  processesWithArgumentPrefix,
  readProcess,
} from '#base/system/process.ts'
import type { Paths } from './layout.ts'

/* Guests of the embedded system. They are not the supervisor's children and outlive their agent, as a hypervisor's guests do; only the
 * loss of their whole site, or the end of the whole system, ends them, too (decision 0124).
 *
 * Those of QEMU are recognised by the path of their pid file on their command line, which no other process has, and which is there
 * before the file is. Those that an operator's own program started have a pid file only; its pid is theirs while the process is older
 * than the file: whoever was given the number later is younger.
 */

/** How long a killed process may take to be gone, ms. */
const GONE_LIMIT_MS = 10_000
/** Start times are counted in steps of 10 ms, times of files are not taken from the same clock. */
const AGE_SLACK_MS = 1_000
const TICK_MS = 10

/** What the agent of a site is told, so that its guests can be found. */
export const guestOptions = (paths: Paths, site: string): Readonly<Record<string, unknown>> => ({
  runDir: paths.run,
  guestPrefix: site,
  guestsAtStop: 'power_down',
  // Shorter than what an agent has to stop.
  guestGraceMs: 4_000,
})

/** SIGKILL to every guest of a site, all at once. Settles with the names of their pid files when they are gone. */
export async function killGuests(
  clock: Clock,
  paths: Paths,
  site: string,
): Promise<readonly string[]> {
  const prefix = `${site}-guest-`
  const byCommand = await processesWithArgumentPrefix(join(paths.run, prefix), '-pidfile')
  const guests = new Map(byCommand.map(({ rest, facts }) => [`${prefix}${rest}`, facts]))
  for (const file of await filesIn(paths.run)) {
    if (!file.startsWith(prefix) || !file.endsWith('.pid') || guests.has(file)) continue
    const facts = await ownerOf(clock, join(paths.run, file))
    if (facts !== undefined) guests.set(file, facts)
  }
  const ended = await Promise.all(
    [...guests].map(async ([file, facts]) => {
      await killAndWait(clock, facts, GONE_LIMIT_MS)
      await rm(join(paths.run, file), { force: true })
      return basename(file, '.pid')
    }),
  )
  return ended.toSorted()
}

/** The process that a pid file was written for; undefined: it has ended. */
async function ownerOf(clock: Clock, pidFile: string): Promise<ProcessFacts | undefined> {
  try {
    const fileAgeMs = Date.now() - (await stat(pidFile)).mtimeMs
    const pid = Number(await readFile(pidFile, 'utf8'))
    if (!Number.isSafeInteger(pid) || pid <= 1) return undefined
    const facts = await readProcess(pid)
    if (facts === undefined || facts.state === 'Z') return undefined
    const processAgeMs = clock.bootMs() - facts.startTicks * TICK_MS
    return processAgeMs >= fileAgeMs - AGE_SLACK_MS ? facts : undefined
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

async function filesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return []
    throw error
  }
}
