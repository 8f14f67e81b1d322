import { open, readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { systemClock } from '#base/system/clock.ts'
import type { ApiSession } from '#client/api.ts'
import {
  type Drill,
  type DrillReport,
  deleteDrill,
  downloadReport,
  listDrills,
  listReports,
  reportKey,
  showDrill,
  startDrill,
} from '#client/drills.ts'
import { API_REFUSED } from '#client/faults.ts'
import { preflightGroup } from '#client/native.ts'
import { isFault } from '#base/fault.ts'
import { waitFor } from '#client/sdrs.ts'
import type { CommandContext } from '../context.ts'
import { type JobFlags, limitOf } from '../jobs.ts'
import { followOperation } from '../operations.ts'
import { columns, type Output } from '../output.ts'
import { type WishFlags, wishOf, wishOptions } from '../drill-wish.ts'
import { probeText } from '../probe-text.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'
import { drillScheduleCommand } from './drill-schedule.ts'
import { drillVerifyCommand } from './drill-verify.ts'
import { preflightReport } from './group-detail.ts'

/* `holdfast drill`: failovers tried on copies, and what they prove. */

const waitOptions = (command: Command): Command =>
  command
    .option('--no-wait', 'print the operation and leave')
    .option('--timeout <seconds>', 'longest wait for the end', '900')

export function drillCommand(command: Command, context: CommandContext): void {
  command.description('drills: failovers tried on copies, with a signed report')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const start = waitOptions(
    wishOptions(
      leaf('start')
        .description('boot copies of the DR side in a network of their own, and look at them')
        .argument('<name>')
        .requiredOption('--group <id>', 'the group whose failover is tried'),
    )
      .option('--delete', 'delete the drill when its report is written')
      .option('--dry-run', 'only say what stands against it, and what happens'),
  )
  apiAction<JobFlags & WishFlags & { group: string; delete?: boolean; dryRun?: boolean }>(
    context,
    start,
    async (api, output, flags, name = '') => {
      if (flags.dryRun === true) {
        const vpc = flags.vpc === undefined ? {} : { vpc: flags.vpc }
        const found = await preflightGroup(api, flags.group, 'drill', vpc)
        return output.result(found, preflightReport(found))
      }
      const { drill, operation_id } = await startDrill(api, {
        group: flags.group,
        name,
        ...wishOf(flags),
        ...(flags.delete === true ? { delete_after: true } : {}),
      })
      const what = `drill ${name} (${drill.id})`
      const ended = await followOperation(api, context, output, operation_id, flags, what)
      if (ended === undefined) return
      if (flags.delete === true) await untilGone(api, output, drill.id, flags)
      const report = await reportOf(api, drill.id)
      output.result(report, reportLines(report))
    },
  )

  const list = leaf('list')
    .description('list the drills')
    .option('--group <id>', 'only those of this group')
  apiAction<{ group?: string }>(context, list, async (api, output, { group }) => {
    const drills = await listDrills(api, group)
    const rows = drills.map((one) => [
      one.id,
      one.name,
      one.status,
      one.group,
      one.site,
      one.servers.length,
      one.created_at,
      one.reason,
    ])
    const heads = ['id', 'name', 'status', 'group', 'site', 'servers', 'begun', 'reason']
    output.result({ drills }, columns(heads, rows))
  })

  const show = leaf('show').description('show a drill').argument('<drill>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const drill = await showDrill(api, id)
    output.result(drill, detail(drill))
  })

  const remove = waitOptions(
    leaf('delete')
      .description('delete a drill, and ask its site whether anything is left')
      .argument('<drill>')
      .option('--force', 'do not wait for a silent site; the rest goes when it is heard again'),
  )
  apiAction<JobFlags & { force?: boolean }>(
    context,
    remove,
    async (api, output, flags, id = '') => {
      const { operation_id } = await deleteDrill(api, id, flags.force === true)
      const what = `deleting drill ${id}`
      const ended = await followOperation(api, context, output, operation_id, flags, what)
      if (ended === undefined) return
      const report = await reportOf(api, id)
      output.result(report, reportLines(report))
    },
  )

  const report = leaf('report')
    .description('write the newest report of a drill to a file, exactly as it was signed')
    .argument('<drill>', 'also one that was deleted; or #N for the place in the chain')
    .option('--out <file>', 'default: drill-report-N.json; - for standard output')
  apiAction<{ out?: string }>(context, report, async (api, output, { out }, wanted = '') => {
    const ordinal = /^#(\d{1,9})$/.exec(wanted)?.[1]
    const bytes = await downloadReport(
      api,
      ordinal === undefined ? { drill: wanted } : { ordinal: Number(ordinal) },
    )
    const text = Buffer.from(bytes).toString()
    if (out === '-') return void context.streams.out.write(text)
    const content = contentOf(text)
    const file = out ?? `drill-report-${content.ordinal}.json`
    await writeNew(file, bytes)
    output.result({ file, report: content }, [`report ${content.ordinal} is in ${file}`])
  })

  const reports = leaf('reports')
    .description('list the reports of the project, newest first')
    .option('--drill <id>', 'only those of this drill')
  apiAction<{ drill?: string }>(context, reports, async (api, output, { drill }) => {
    const found = await listReports(api, drill)
    const rows = found.map((one) => [one.ordinal, one.stage, one.drill, one.created_at, one.hash])
    output.result({ reports: found }, columns(['#', 'stage', 'drill', 'made', 'hash'], rows))
  })

  const key = leaf('key').description('print the public key that reports are verified with')
  apiAction(context, key, async (api, output) => {
    const known = await reportKey(api)
    output.result(known, known.public_key.trimEnd())
  })

  drillVerifyCommand(command, context)
  drillScheduleCommand(command.command('schedule'), context)
}

/** The drill deletes itself; its last report says how that went. */
async function untilGone(
  api: ApiSession,
  output: Output,
  id: string,
  flags: JobFlags,
): Promise<void> {
  output.say('the report is written; waiting until the drill is deleted')
  await waitFor(
    `the end of drill ${id}`,
    async () => {
      try {
        return (await showDrill(api, id)).status
      } catch (error) {
        if (isFault(error, API_REFUSED) && error.detail['status'] === 404) return 'gone'
        throw error
      }
    },
    (status) => status === 'gone' || status === 'error-deleting',
    { clock: systemClock, limitMs: limitOf(flags) },
  )
}

const contentOf = (text: string): DrillReport =>
  (JSON.parse(text) as { report: DrillReport }).report

const reportOf = async (api: ApiSession, drill: string): Promise<DrillReport> =>
  contentOf(Buffer.from(await downloadReport(api, { drill })).toString())

/** Nothing that exists is overwritten: a report is evidence. */
async function writeNew(file: string, bytes: Uint8Array): Promise<void> {
  const handle = await open(file, 'wx', 0o644).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
    if ((await readFile(file)).equals(bytes)) return undefined
    throw usageError(`${file} exists and is another file`)
  })
  if (handle === undefined) return
  try {
    await handle.writeFile(bytes)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

// ---------------------------------------------------------------- for people

const seconds = (ms: number | null): string => (ms === null ? '-' : `${(ms / 1000).toFixed(1)} s`)

const dataAge = (ms: number | null, basis: string): string =>
  ms === null ? 'not known' : basis === 'in_sync' ? 'nothing is missing' : `at most ${seconds(ms)}`

export function reportLines(report: DrillReport): string[] {
  const { drill, group, teardown } = report
  const result = {
    passed: 'passed',
    probes_failed: 'PROBES FAILED',
    nothing_proved: 'NOTHING PROVED (no server, or one that was asked nothing)',
    failed: 'FAILED',
  }
  return [
    `${drill.name} of group ${group.name}: ${result[report.result]}   (report ${report.ordinal}, ${report.stage})`,
    ...(report.failure === null ? [] : [`  ${report.failure.message}`]),
    `recovery time ${seconds(report.recovery_time_ms)}   data: ${dataAge(report.data_age_ms, report.data_age_basis)}   longest wait of a write: ${report.production_stall_ms ?? '-'} ms`,
    ...serverLines(report.servers),
    ...(teardown === null
      ? []
      : [
          teardown.verdict === 'clean' ? 'left behind: nothing (clean)' : 'NOT CLEAN:',
          ...teardown.reasons.map((reason) => `  ${reason}`),
          ...('forced' in teardown && teardown.forced
            ? ['given up by force: it is cleaned up when the site is heard again']
            : []),
        ]),
  ]
}

const serverLines = (servers: DrillReport['servers']): string[] =>
  columns(
    ['server', 'address', 'probe', 'found', 'after begin', 'since start'],
    servers.flatMap(({ name, addresses, probes }) => {
      const place = [name, addresses.join(' ')]
      if (probes.length === 0) return [[...place, '-', '-', '-', '-']]
      return probes.map((one) => [
        ...place,
        probeText(one.probe),
        one.ok ? `ok: ${one.detail}` : `NO: ${one.detail}`,
        seconds('after_begin_ms' in one ? one.after_begin_ms : one.after_request_ms),
        seconds(one.since_start_ms),
      ])
    }),
  )

function detail(drill: Drill): string[] {
  const { findings } = drill
  return [
    `${drill.id} ${drill.name}: ${drill.status}${drill.reason === null ? '' : ` (${drill.reason})`}`,
    `group ${drill.group}   at ${drill.site}   VPC ${drill.vpc}   asked for ${drill.created_at}   ${drill.began_at === null ? 'waits for its turn' : `begun ${drill.began_at}`}`,
    ...(drill.given_up_at === null
      ? []
      : [`given up ${drill.given_up_at}: it goes when ${drill.site} is heard`]),
    ...(findings === null
      ? columns(
          ['server', 'id', 'instance', 'state'],
          drill.servers.map(({ name, server, instance, state, reason }) => [
            name,
            server,
            instance,
            reason === null ? state : `${state}: ${reason}`,
          ]),
        )
      : [
          `data: ${dataAge(findings.data_age_ms, findings.data_age_basis)}   longest wait of a write: ${findings.production_stall_ms} ms`,
          ...serverLines(findings.servers),
        ]),
  ]
}
