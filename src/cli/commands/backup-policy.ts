import type { Command } from 'commander'
import {
  type Checkpoint,
  copyPolicy,
  createPolicy,
  deleteCheckpoint,
  deletePolicy,
  enablePolicy,
  listBackups,
  listCheckpoints,
  listPolicies,
  type Policy,
  runPolicy,
  showCheckpoint,
  showPolicy,
} from '#client/backups.ts'
import type { CommandContext } from '../context.ts'
import { type JobFlags, positiveInteger } from '../jobs.ts'
import { columns } from '../output.ts'
import { apiAction, apiLeaf } from '../session.ts'
import {
  type CopyFlags,
  copyOptions,
  copyTarget,
  followBackup,
  followCopy,
  table as backupTable,
} from './backup.ts'
import { attachLeaves } from './checkpoint-attach.ts'
import { jobOptions } from './group.ts'

/* `holdfast policy` and `holdfast checkpoint`: what is backed up when and kept how long, and what each run made. */

interface CreateFlags {
  readonly server?: string[]
  readonly rule: string
  readonly description?: string
  readonly keep?: string
  readonly days?: string
  readonly daily?: string
  readonly weekly?: string
  readonly monthly?: string
  readonly yearly?: string
  readonly timezone: string
  readonly disabled?: boolean
}

const COUNT_MAX = 99_999
const SLOTS_MAX = 100

/** What was not given is not sent. */
function definitionOf(flags: CreateFlags): Record<string, unknown> {
  const counts = [
    ['max_backups', '--keep', flags.keep, COUNT_MAX],
    ['retention_duration_days', '--days', flags.days, COUNT_MAX],
    ['day_backups', '--daily', flags.daily, SLOTS_MAX],
    ['week_backups', '--weekly', flags.weekly, SLOTS_MAX],
    ['month_backups', '--monthly', flags.monthly, SLOTS_MAX],
    ['year_backups', '--yearly', flags.yearly, SLOTS_MAX],
  ] as const
  const given = counts.flatMap(([name, flag, text, most]) =>
    text === undefined ? [] : [[name, positiveInteger(flag, text, most)] as const],
  )
  const slots = given.some(([name]) => name !== 'max_backups' && name !== 'retention_duration_days')
  return { ...Object.fromEntries(given), ...(slots ? { timezone: flags.timezone } : {}) }
}

export function policyCommand(command: Command, context: CommandContext): void {
  command.description('backup policies: which servers are backed up when, and what is kept')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const create = leaf('create')
    .description('make a policy')
    .argument('<name>')
    .requiredOption('--rule <rrule>', 'when, in UTC: FREQ=DAILY;BYHOUR=3;BYMINUTE=0')
    .option('--server <id...>', 'servers to back up')
    .option('--description <text>')
    .option('--keep <n>', 'keep the newest so many backups of each server')
    .option('--days <n>', 'keep backups so many days')
    .option('--daily <n>', 'keep the last backup of each of so many days, whatever the above')
    .option('--weekly <n>', '... of so many weeks')
    .option('--monthly <n>', '... of so many months')
    .option('--yearly <n>', '... of so many years')
    .option('--timezone <zone>', 'in which days begin', 'UTC+00:00')
    .option('--disabled', 'runs only by hand')
  apiAction<CreateFlags>(context, create, async (api, output, flags, name = '') => {
    const { description } = flags
    const policy = await createPolicy(api, {
      name,
      ...(description === undefined ? {} : { description }),
      servers: flags.server ?? [],
      rule: flags.rule,
      enabled: flags.disabled !== true,
      definition: definitionOf(flags),
    })
    output.result(policy, policyDetail(policy))
  })

  const list = leaf('list').description('list the policies')
  apiAction(context, list, async (api, output) => {
    const policies = await listPolicies(api)
    output.result({ policies }, policyTable(policies))
  })

  const show = leaf('show').description('show a policy').argument('<policy>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const policy = await showPolicy(api, id)
    output.result(policy, policyDetail(policy))
  })

  for (const [word, enabled] of [
    ['enable', true],
    ['disable', false],
  ] as const) {
    const about = enabled ? 'let a policy run by itself' : 'let a policy run by hand only'
    const change = leaf(word).description(about).argument('<policy>')
    apiAction(context, change, async (api, output, _, id = '') => {
      const policy = await showPolicy(api, id)
      await enablePolicy(api, policy, enabled)
      output.result(await showPolicy(api, id), `policy ${policy.name}: ${word}d`)
    })
  }

  const run = jobOptions(
    leaf('run').description('back up the servers of a policy now').argument('<policy>'),
  )
  apiAction<JobFlags>(context, run, async (api, output, flags, id = '') => {
    const checkpoint = await runPolicy(api, id)
    const begun = await listBackups(api, { checkpoint: checkpoint.id })
    if (flags.wait) {
      for (const backup of begun) await followBackup(api, context, output, backup.id, flags)
    }
    const backups = await listBackups(api, { checkpoint: checkpoint.id })
    output.result({ checkpoint, backups }, backupTable(backups))
  })

  const replicate = jobOptions(
    copyOptions(
      leaf('replicate')
        .description('copy what a policy made, and is not there yet, to another region')
        .argument('<policy>'),
    ),
  )
  apiAction<CopyFlags>(context, replicate, async (api, output, flags, id = '') => {
    const chosen = await copyPolicy(api, id, copyTarget(flags))
    output.say(`${chosen.length} backups to be copied to ${flags.toRegion}`)
    if (!flags.wait || chosen.length === 0) {
      output.result({ copies: chosen }, `${chosen.length} backups to be copied`)
      return
    }
    for (const { checkpoint_item_id: backup, replication_record_id: record } of chosen) {
      await followCopy(api, context, output, { backup, record }, flags)
    }
  })

  const remove = leaf('delete')
    .description('delete a policy; what it made stays until somebody deletes it')
    .argument('<policy>')
  apiAction(context, remove, async (api, output, _, id = '') => {
    await deletePolicy(api, id)
    output.result({ policy: id }, `policy ${id} is deleted`)
  })
}

export function checkpointCommand(command: Command, context: CommandContext): void {
  command.description('checkpoints: what one run of a policy, or one single backup, made')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const list = leaf('list')
    .description('list the checkpoints, newest first')
    .option('--policy <id>', 'only those of this policy')
  apiAction<{ policy?: string }>(context, list, async (api, output, { policy }) => {
    const checkpoints = await listCheckpoints(api, policy)
    output.result({ checkpoints }, checkpointTable(checkpoints))
  })

  const show = leaf('show')
    .description('show a checkpoint and its backups')
    .argument('<checkpoint>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const checkpoint = await showCheckpoint(api, id)
    const backups = await listBackups(api, { checkpoint: id })
    output.result({ checkpoint, backups }, [
      ...checkpointTable([checkpoint]),
      ...backupTable(backups),
    ])
  })

  const remove = leaf('delete')
    .description('delete a checkpoint with all its backups')
    .argument('<checkpoint>')
  apiAction(context, remove, async (api, output, _, id = '') => {
    await deleteCheckpoint(api, id)
    output.result({ checkpoint: id }, `checkpoint ${id} is being deleted`)
  })

  attachLeaves(leaf, context)
}

const ruleOf = (policy: Policy): string =>
  /RRULE:([^\r\n\\]+)/.exec(
    policy.scheduled_operations[0]?.trigger.properties.pattern ?? '',
  )?.[1] ?? ''

const policyTable = (policies: readonly Policy[]): string[] =>
  columns(
    ['id', 'name', 'servers', 'enabled', 'rule'],
    policies.map((one) => [
      one.id,
      one.name,
      one.resources.length,
      one.scheduled_operations.some(({ enabled }) => enabled) ? 'yes' : 'no',
      ruleOf(one),
    ]),
  )

function policyDetail(policy: Policy): string[] {
  const [operation] = policy.scheduled_operations
  const { plan_id: _, provider_id: __, ...kept } = operation?.operation_definition ?? {}
  return [
    ...policyTable([policy]),
    ...Object.entries(kept).map(([name, value]) => `${name}: ${String(value)}`),
    ...policy.resources.map(({ id }) => `server ${id}`),
  ]
}

const checkpointTable = (checkpoints: readonly Checkpoint[]): string[] =>
  columns(
    ['id', 'status', 'made', 'policy'],
    checkpoints.map((one) => [
      one.id,
      one.status,
      `${one.created_at.slice(0, 19).replace('T', ' ')} UTC`,
      one.protection_plan.name,
    ]),
  )
