import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import { hasCode } from '#base/system/files.ts'
import type { CommandContext } from '../context.ts'
import { positiveInteger } from '../jobs.ts'
import type { Output } from '../output.ts'
import { INTERRUPTED, usageError } from '../usage.ts'
import { serversPossible } from './server.ts'
import { runSteps } from './steps.ts'
import { type DemoReport, type Story, tellStory } from './story.ts'
import { DEMO_FAILED } from './system.ts'

export interface DemoFlags {
  readonly data?: string
  readonly seconds: string
  readonly keep?: boolean
  /** false: tell no part of a server. */
  readonly server?: boolean
}

/** Runs the demo in a directory of its own; throws unless every byte was verified. */
export async function demo(
  flags: DemoFlags,
  context: CommandContext,
  output: Output,
): Promise<void> {
  const seconds = positiveInteger('--seconds', flags.seconds, 3600)
  const server = flags.server !== false && serversPossible()
  if (flags.server !== false && !server) {
    output.say('no server in this demo: QEMU (qemu-system-x86) is not installed')
  }
  const directory = await workDirectory(flags.data)
  const begunMs = systemClock.bootMs()
  const story = tellStory({
    clock: systemClock,
    self: context.self,
    directory,
    loadMs: seconds * 1000,
    server,
  })
  let kept = flags.keep === true
  try {
    await tell(story, context, output)
    const report = story.report()
    const tookMs = Math.round(systemClock.bootMs() - begunMs)
    output.result({ event: 'report', ...report, tookMs }, lines(report, tookMs))
    if (!report.verified) {
      kept = true
      throw new Fault(DEMO_FAILED, 'comparing what was written with what is there: they differ')
    }
  } catch (error) {
    if (!isFault(error, INTERRUPTED)) kept = true
    throw error
  } finally {
    await story.close()
    if (kept) output.say(`data and logs are in ${directory}`)
    else await rm(directory, { recursive: true, force: true })
  }
}

/** Runs the steps; Ctrl-C ends them by an error, so that everything is cleaned up. */
async function tell(story: Story, context: CommandContext, output: Output): Promise<void> {
  const interrupted = new Promise<never>((_, reject) => {
    const onSignal = () => reject(new Fault(INTERRUPTED, 'stopping on a signal'))
    // Not `once`: the terminal library sends the signal again when nobody listens any more.
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal)
  })
  const steps = runSteps(story.steps, context.streams, output)
  await Promise.race([steps, interrupted])
}

async function workDirectory(wanted: string | undefined): Promise<string> {
  if (wanted === undefined) return await mkdtemp(join(tmpdir(), 'holdfast-demo-'))
  const directory = resolve(wanted)
  try {
    if ((await readdir(directory)).length > 0) {
      throw usageError(`--data ${directory} is not empty; the demo starts from nothing`)
    }
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error
  }
  await mkdir(directory, { recursive: true })
  return directory
}

function lines(report: DemoReport, tookMs: number): string[] {
  const { writes, rate, image } = report
  const perSecond = Math.round(rate.writes / rate.seconds)
  const rows: [string, string][] = [
    [
      'acknowledged writes',
      `${group(writes.acknowledged)} of 4 KiB, over two volumes, 16 at a time`,
    ],
    ['lost', String(writes.lost)],
    ['damaged blocks', String(writes.damaged)],
    ['chains out of order', String(writes.outOfOrder)],
    ['in flight at the kill and present', String(writes.unacknowledgedPresent)],
    [
      'throughput in sync',
      `${group(perSecond)} writes/s (${Math.round(perSecond / 256)} MiB/s), half within ${rate.p50Ms.toFixed(2)} ms, 99 % within ${rate.p99Ms.toFixed(1)} ms`,
    ],
    ['killed', report.killed.join(', ')],
    ['writable again after', `${(report.writableAfterMs / 1000).toFixed(1)} s`],
    ['file system', image.fileSystemClean ? 'clean (e2fsck -fn)' : 'DAMAGED (e2fsck -fn)'],
    ['database', `integrity ${image.databaseIntegrity}, ${group(image.rows)} rows`],
    ['files', `${image.filesEqual} of ${image.filesExpected} with the same SHA-256`],
    ...serverRows(report),
    ['took', `${Math.round(tookMs / 1000)} s`],
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  return [
    '',
    report.verified
      ? 'The production site was lost. No acknowledged write was.'
      : 'VERIFICATION FAILED: see the lines that are not as they should be.',
    '',
    ...rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`),
    '',
  ]
}

function serverRows({ server }: DemoReport): [string, string][] {
  if (server === null) return []
  const { acknowledged, found, continued, boots, addresses, bootMs } = server
  const [before, after] = addresses
  return [
    ["guest's counter", `${acknowledged} acknowledged, ${found} found after the failover`],
    ['guest', `the same disk at boot ${boots}, went on to ${continued}`],
    ["guest's address", before === after ? before : `${before}, then ${after}`],
    ['guest counts again', `${(bootMs / 1000).toFixed(1)} s after the order to start it`],
  ]
}

/** 1234567 as 1 234 567. */
const group = (value: number): string =>
  String(value).replaceAll(/(?<=[0-9])(?=(?:[0-9]{3})+$)/g, ' ')
