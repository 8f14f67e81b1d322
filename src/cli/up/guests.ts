import { rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { killAndWait, processesWithArgumentPrefix } from '#base/system/process.ts'
import type { Paths } from './layout.ts'

/* Guests of the embedded system. They are not the supervisor's children and outlive their agent, as a hypervisor's guests do; only the
 * loss of their whole site, or the end of the whole system, ends them, too. They are recognised by the path of their pid file on
 * their command line, which no other process has. */

/** A killed process of the kernel's is waited for so long, ms. */
const GONE_LIMIT_MS = 10_000

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
  const found = await processesWithArgumentPrefix(join(paths.run, `${site}-guest-`))
  const ended = await Promise.all(
    found.map(async ({ rest, facts }) => {
      const pidFile = join(paths.run, `${site}-guest-${rest}`)
      await killAndWait(clock, facts, GONE_LIMIT_MS)
      await rm(pidFile, { force: true })
      return basename(pidFile, '.pid')
    }),
  )
  return ended.toSorted()
}
