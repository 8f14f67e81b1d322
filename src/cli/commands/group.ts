import type { Command } from 'commander'
import type { ApiSession } from '#client/api.ts'
import {
  GROUP_ACTIONS,
  type GroupAction,
  type GroupDetail,
  listForecasts,
  listGroupDetails,
  preflightGroup,
  setArbitration,
  showArbitration,
  showGroupDetail,
  showGroupHistory,
  vouchForGroup,
} from '#client/native.ts'
import {
  createGroup,
  deleteGroup,
  failOverGroup,
  listDomains,
  listGroups,
  listVpcs,
  reverseGroup,
  type SdrsDomain,
  type SdrsGroup,
  showGroup,
  startGroup,
  stopGroup,
} from '#client/sdrs.ts'
import type { CommandContext } from '../context.ts'
import { followJob, type JobFlags, positiveInteger } from '../jobs.ts'
import { columns, type Output } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'
import { groupAutomaticCommands } from './group-automatic.ts'
import { failOverOtherGroup, toldInFlags } from './group-failover.ts'
import { followSwitch, groupRecoveryCommands } from './group-recovery.ts'
import { groupVerifyCommand } from './group-verify.ts'
import {
  arbitrationText,
  detailLines,
  foretoldLines,
  preflightLines,
  preflightReport,
} from './group-detail.ts'

/* `holdfast group`: protection groups and their life, over the SDRS interface; what that does not know (preflight, arbitration,
 * history, vouching) over our own. */

export const jobOptions = (command: Command): Command =>
  command
    .option('--no-wait', 'print the job and leave')
    .option('--timeout <seconds>', 'longest wait for the job', '300')

interface CreateFlags extends JobFlags {
  readonly source: string
  readonly target: string
  readonly vpc?: string
  readonly description?: string
  readonly mode: string
  readonly preferred?: string
  readonly startServers?: boolean
}

export function groupCommand(command: Command, context: CommandContext): void {
  command.description('protection groups: create, start, stop, switch sides, fail over')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const create = jobOptions(
    leaf('create')
      .description('create a group whose volumes move together')
      .argument('<name>')
      .requiredOption('--source <site>', 'production site')
      .requiredOption('--target <site>', 'DR site')
      .option('--vpc <id>', 'network (default: the first of the project)')
      .option('--description <text>', 'at most 64 bytes, without < and >')
      .option('--mode <mode>', 'arbitration: witness or static-priority', 'witness')
      .option('--preferred <site>', 'site that may go on alone under static-priority')
      .option('--start-servers', 'a failover or reversal starts the servers of the new production'),
  )
  apiAction<CreateFlags>(context, create, async (api, output, flags, name = '') => {
    if (flags.mode !== 'witness' && !flags.wait) {
      throw usageError(`--mode ${flags.mode} is set when the group exists: not with --no-wait`)
    }
    const domain = domainOf(await listDomains(api), flags.source, flags.target)
    const vpcId = flags.vpc ?? (await listVpcs(api))[0]?.id
    if (vpcId === undefined) throw usageError('--vpc is required: the project has no network')
    const job = await createGroup(api, {
      name,
      source: flags.source,
      target: flags.target,
      domainId: domain.id,
      vpcId,
      ...(flags.description === undefined ? {} : { description: flags.description }),
      startServers: flags.startServers === true,
    })
    const ended = await followJob(api, output, job, flags, `creating group ${name}`)
    const group = ended?.entities['server_group_id']
    if (typeof group !== 'string') return
    if (flags.mode !== 'witness') {
      const preferred = flags.preferred ?? flags.source
      await setArbitration(api, group, { mode: flags.mode, preferred })
    }
    output.say(`group ${group}`)
  })

  apiAction(context, leaf('list').description('list the groups'), async (api, output) => {
    const groups = await listGroups(api)
    const others = (await listGroupDetails(api)).filter(({ form }) => form !== 'sdrs')
    output.result({ groups, volume_api_groups: others }, [
      ...table(groups),
      ...(others.length === 0 ? [] : ['', 'of the volume API:', ...otherTable(others)]),
    ])
  })

  const show = leaf('show').description('show a group').argument('<group>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const detail = await showGroupDetail(api, id)
    if (detail.form !== 'sdrs') {
      output.result({ detail }, [...otherTable([detail]), '', ...detailLines(detail)])
      return
    }
    const group = await showGroup(api, id)
    output.result({ ...group, detail }, [...table([group]), '', ...detailLines(detail)])
  })

  /** `act` returns the job to follow; null: it has followed it itself. */
  const change = <Flags = object>(
    name: GroupAction,
    about: string,
    act: (
      api: ApiSession,
      group: string,
      output: Output,
      flags: JobFlags & Flags,
    ) => Promise<string | null>,
    extend: (one: Command) => Command = (one) => one,
  ) => {
    const one = extend(jobOptions(leaf(name).description(about).argument('<group>')))
    one.option('--dry-run', 'only say what it would do, what stands against it and what it takes')
    apiAction<JobFlags & Flags & Statements & { dryRun?: boolean }>(
      context,
      one,
      async (api, output, flags, id = '') => {
        if (flags.dryRun === true) return await rehearse(api, output, id, name, flags)
        const job = await act(api, id, output, flags)
        if (job === null) return
        const ended = await followJob(api, output, job, flags, `${name} ${id}`)
        if (ended !== undefined && FORETOLD.has(name)) {
          const told = await listForecasts(api, id, FORETOLD_AMONG)
          const one = told.find(({ operation }) => operation === job)
          for (const line of foretoldLines(one)) output.say(line)
        }
        if (SWITCHES.has(name)) await followSwitch(api, context, output, id, flags)
      },
    )
  }
  change(
    'start',
    'protect: copy, then keep both sites in sync; after a failover: protect again',
    async (api, id, output) => {
      for (const line of preflightLines(await preflightGroup(api, id, 'start'))) output.say(line)
      return await startGroup(api, id)
    },
  )
  change('stop', 'stop protecting; production goes on alone', (api, id) => stopGroup(api, id))
  change(
    'reverse',
    'planned switch: the other site becomes production, nothing is lost',
    async (api, id) => {
      const { priority_station: now } = await showGroup(api, id)
      return await reverseGroup(api, id, now === 'source' ? 'target' : 'source')
    },
  )
  change<Statements>(
    'failover',
    'the production site is lost: make the DR site writable',
    async (api, id, output, flags) => {
      const { force = false, preferredSiteIsOff: preferredOff = false } = flags
      const found = await preflightGroup(api, id, 'failover', { force, preferredOff })
      for (const line of preflightLines(found)) output.say(line)
      if (found.paused || (await showGroupDetail(api, id)).form !== 'sdrs') {
        await failOverOtherGroup(api, output, id, flags, { force, preferredOff })
        return null
      }
      return await toldInFlags(failOverGroup(api, id, force, preferredOff))
    },
    (one) =>
      one
        .option(
          '--force',
          'also to a side that is not known to hold every write, or whose group is paused: writes may be lost',
        )
        .option(
          '--preferred-site-is-off',
          'you state that the preferred site of a static-priority group is off',
        ),
  )
  groupVerifyCommand(leaf('verify'), context)
  groupRecoveryCommands(command, context)
  groupAutomaticCommands(command, context)
  change('delete', 'delete a group without pairs', (api, id) => deleteGroup(api, id))

  const preflight = leaf('preflight')
    .description('show what an action would do and what it needs; changes nothing')
    .argument('<group>')
    .argument('<action>', GROUP_ACTIONS.join(', '))
    .option('--force', 'as for failover')
    .option('--preferred-site-is-off', 'as for failover')
  apiAction<Statements>(context, preflight, async (api, output, flags, id = '', action = '') => {
    if (!isAction(action)) {
      throw usageError(`the action ${action} is not known, accepted: ${GROUP_ACTIONS.join(', ')}`)
    }
    await rehearse(api, output, id, action, flags)
  })

  const forecasts = leaf('forecasts')
    .description('list what actions on a group were expected to take, and what they took')
    .argument('<group>')
    .option('--limit <number>', 'at most so many, newest first', '20')
  apiAction<{ limit: string }>(context, forecasts, async (api, output, { limit }, id = '') => {
    const found = await listForecasts(api, id, positiveInteger('--limit', limit, 100))
    output.result(
      { forecasts: found },
      columns(
        ['time', 'action', 'ended as', 'foretold ms', 'took ms', 'error'],
        found.map((one) => [
          one.begin_at,
          one.kind,
          one.status,
          one.forecast_ms,
          one.actual_ms,
          one.error_percent === null ? null : `${one.error_percent} %`,
        ]),
      ),
    )
  })

  const arbitration = leaf('arbitration')
    .description('show or change who may go on when the sites and the witness lose each other')
    .argument('<group>')
    .option('--mode <mode>', 'witness (default of new groups) or static-priority')
    .option('--preferred <site>', 'site that may go on alone under static-priority')
  apiAction<{ mode?: string; preferred?: string }>(
    context,
    arbitration,
    async (api, output, { mode, preferred }, id = '') => {
      if (mode === undefined && preferred !== undefined) throw usageError('--mode is required')
      if (mode !== undefined && mode !== 'witness' && mode !== 'static-priority') {
        throw usageError(`--mode ${mode} is not known, accepted: witness, static-priority`)
      }
      const now =
        mode === undefined
          ? await showArbitration(api, id)
          : await setArbitration(api, id, {
              mode,
              ...(preferred === undefined ? {} : { preferred }),
            })
      output.result(now, arbitrationText(now))
    },
  )

  const vouch = leaf('vouch')
    .description(
      'state that a silent site is off, so that the witness trusts its record without it',
    )
    .argument('<group>')
    .requiredOption('--site-off <site>', 'the site that is off, and stays off')
  apiAction<{ siteOff: string }>(context, vouch, async (api, output, { siteOff }, id = '') => {
    const detail = await vouchForGroup(api, id, siteOff)
    output.result(detail, detailLines(detail))
  })

  const history = leaf('history')
    .description('list every change of the ownership of a group, newest first')
    .argument('<group>')
    .option('--limit <number>', 'at most so many', '20')
  apiAction<{ limit: string }>(context, history, async (api, output, { limit }, id = '') => {
    const changes = await showGroupHistory(api, id, positiveInteger('--limit', limit, 1_000))
    output.result(
      { changes },
      columns(
        ['time', 'epoch', 'change', 'state', 'writes', 'asked by'],
        changes.map((one) => [one.at, one.epoch, one.kind, one.state, one.writer, one.asked_by]),
      ),
    )
  })
}

interface Statements {
  readonly force?: boolean
  readonly preferredSiteIsOff?: boolean
}

/** What an action would do, for people and for machines. Accepted or not: asking was all that was asked. */
async function rehearse(
  api: ApiSession,
  output: Output,
  group: string,
  action: GroupAction,
  { force, preferredSiteIsOff }: Statements,
): Promise<void> {
  const found = await preflightGroup(api, group, action, {
    force: force === true,
    preferredOff: preferredSiteIsOff === true,
  })
  output.result(found, preflightReport(found))
}

/** Whose operations keep what they were expected to take; some others may have begun since. */
const FORETOLD: ReadonlySet<string> = new Set(['start', 'failover', 'reverse'])
const FORETOLD_AMONG = 10

/** What the servers of a group follow. */
const SWITCHES: ReadonlySet<string> = new Set(['failover', 'reverse'])

const isAction = (text: string): text is GroupAction =>
  (GROUP_ACTIONS as readonly string[]).includes(text)

function domainOf(domains: readonly SdrsDomain[], source: string, target: string): SdrsDomain {
  const zones = (one: SdrsDomain) => [
    one.local_replication_cluster.availability_zone,
    one.remote_replication_cluster.availability_zone,
  ]
  const found = domains.find((one) => zones(one).includes(source) && zones(one).includes(target))
  if (found === undefined || source === target) {
    const known = domains.map((one) => zones(one).join(' and ')).join('; ')
    throw usageError(`--source ${source} --target ${target} is no domain, accepted: ${known}`)
  }
  return found
}

const siteOf = ({ sides }: GroupDetail, role: string): string =>
  sides.find((side) => side.role === role)?.site ?? ''

/** Groups that the volume API manages. A pair that is in none of them has one of its own. */
const otherTable = (groups: readonly GroupDetail[]): string[] =>
  columns(
    ['id', 'name', 'kind', 'status', 'production', 'DR', 'pairs in sync'],
    groups.map((one) => [
      one.id,
      one.name,
      one.form === 'evs' ? 'consistency group' : 'pair alone',
      one.status,
      siteOf(one, 'production'),
      siteOf(one, 'dr'),
      `${one.pairs.filter((pair) => pair.replication === 'active').length} of ${one.pairs.length}`,
    ]),
  )

const table = (groups: readonly SdrsGroup[]): string[] =>
  columns(
    ['id', 'name', 'status', 'production', 'DR', 'pairs', 'progress'],
    groups.map((one) => {
      const sites = [one.source_availability_zone, one.target_availability_zone]
      const [production, dr] = one.priority_station === 'source' ? sites : sites.toReversed()
      return [
        one.id,
        one.name,
        one.status,
        production,
        dr,
        one.replication_num,
        `${one.progress} %`,
      ]
    }),
  )
