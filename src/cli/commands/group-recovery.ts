import { readFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import { sleep } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import type { ApiSession } from '#client/api.ts'
import {
  commandRecovery,
  deletePlan,
  listRecoveries,
  pageOfRecoveries,
  type Recovery,
  recoverGroup,
  setPlan,
  showPlan,
} from '#client/recovery.ts'
import type { CommandContext } from '../context.ts'
import { type JobFlags, limitOf, positiveInteger } from '../jobs.ts'
import { columns, type Output } from '../output.ts'
import { parsePlan, planLines } from '../plan-file.ts'
import { createProgress } from '../progress.ts'
import { apiAction, apiLeaf } from '../session.ts'

/* `holdfast group plan|recovery|recover|continue|abort`: in which order the servers of a group come back after a switch, and how they did. */

export const RECOVERY_NOT_COMPLETE = fault({
  code: 'RECOVERY_NOT_COMPLETE',
  retry: 'never',
  text: 'Not every server of the group is ready.',
  hint: '`holdfast group recovery` says why of each; `holdfast group recover` tries those again that are not.',
})
export const RECOVERY_LATE = fault({
  code: 'RECOVERY_LATE',
  retry: 'later',
  text: 'The recovery has not come to its end in time; it goes on.',
  hint: 'Look again with `holdfast group recovery`.',
})

const POLL_MS = 500

export function groupRecoveryCommands(command: Command, context: CommandContext): void {
  const plan = command.command('plan').description('in which order servers start after a switch')
  const show = apiLeaf(context, plan, 'show').description('show the plan').argument('<group>')
  apiAction(context, show, async (api, output, _, group = '') => {
    const found = await showPlan(api, group)
    if (found === null) {
      const text = 'no plan: with --start-servers all servers start at once after a switch'
      return output.result({ plan: null }, text)
    }
    const head = `# set by ${found.updated_by} on ${found.updated_at}`
    output.result(found, [head, ...planLines(found.plan, found.names)])
  })
  const set = apiLeaf(context, plan, 'set')
    .description(
      'set the plan from a file (- is standard input); see docs/operating/recovery-plans.md',
    )
    .argument('<group>')
    .argument('<file>')
  apiAction(context, set, async (api, output, _, group = '', file = '') => {
    const text = await readFile(file === '-' ? '/dev/stdin' : file, 'utf8')
    const found = await setPlan(api, group, parsePlan(text))
    output.result(found, planLines(found.plan, found.names))
  })
  const remove = apiLeaf(context, plan, 'delete').description('delete the plan').argument('<group>')
  apiAction(context, remove, async (api, output, _, group = '') => {
    await deletePlan(api, group)
    output.result({ plan: null }, `${group} has no plan any more`)
  })

  const list = apiLeaf(context, command, 'recovery')
    .description('show how the servers of a group came back after its last switch')
    .argument('<group>')
    .option('--limit <number>', 'so many recoveries, newest first; at most 100', '1')
    .option('--marker <recovery>', 'only those older than this one')
  apiAction<{ limit: string; marker?: string }>(
    context,
    list,
    async (api, output, { limit, marker }, group = '') => {
      const most = positiveInteger('--limit', limit, 100)
      const found = await pageOfRecoveries(api, group, most, marker)
      const { recoveries, next_marker: next } = found
      const lines = recoveries.flatMap((one, index) => [
        ...(index > 0 ? [''] : []),
        ...recoveryLines(one),
      ])
      const older = next === null ? [] : ['', `older ones: --marker ${next}`]
      const none = marker === undefined ? 'no recovery so far' : 'no older recovery'
      output.result(found, lines.length > 0 ? [...lines, ...older] : none)
    },
  )

  const begin = (
    name: string,
    about: string,
    act: (api: ApiSession, group: string) => Promise<string>,
  ) => {
    const one = apiLeaf(context, command, name)
      .description(about)
      .argument('<group>')
      .option('--no-wait', 'print the operation and leave')
      .addOption(new Option('--timeout <seconds>', 'longest wait').default('3600'))
    apiAction<JobFlags>(context, one, async (api, output, flags, group = '') => {
      const operation = await act(api, group)
      if (!flags.wait) {
        return output.result(
          { operation_id: operation },
          `${name} ${group}: operation ${operation}`,
        )
      }
      await followRecovery(api, context, output, { group, operation, limitMs: limitOf(flags) })
    })
  }
  begin(
    'recover',
    'start the servers of the production site in the order of the plan',
    recoverGroup,
  )
  begin('continue', 'let a paused recovery go on', (api, group) =>
    commandRecovery(api, group, 'continue'),
  )
  begin('abort', 'end a recovery: nothing more is started', (api, group) =>
    commandRecovery(api, group, 'abort'),
  )
}

/** After a switch: follows the servers if the group has a plan by which they come back. */
export async function followSwitch(
  api: ApiSession,
  context: CommandContext,
  output: Output,
  group: string,
  flags: JobFlags,
): Promise<void> {
  const [newest] = await listRecoveries(api, group, 1)
  if (newest === undefined || newest.ended_at !== null || !flags.wait) return
  output.say('the disks are switched; the servers come back by the plan')
  const at = { group, operation: newest.id, limitMs: limitOf(flags) }
  await followRecovery(api, context, output, at)
}

interface Followed {
  readonly group: string
  readonly operation: string
  readonly limitMs: number
}

/** Until it has ended, or waits for somebody. */
export async function followRecovery(
  api: ApiSession,
  context: CommandContext,
  output: Output,
  { group, operation, limitMs }: Followed,
): Promise<void> {
  const endMs = systemClock.bootMs() + limitMs
  const progress = createProgress(context.streams, output, systemClock)
  let last: Recovery | undefined
  try {
    for (;;) {
      last = (await listRecoveries(api, group, 10)).find(({ id }) => id === operation)
      if (last !== undefined) {
        progress.update(progressLine(last), {
          operation_id: operation,
          state: last.state,
          servers: last.servers.map(({ instance, state }) => ({ instance, state })),
        })
        if (last.ended_at !== null || last.state === 'paused') break
      }
      if (systemClock.bootMs() > endMs) throw new Fault(RECOVERY_LATE, `recovery of ${group}`)
      await sleep(systemClock, POLL_MS)
    }
  } finally {
    progress.end()
  }
  output.result(last, recoveryLines(last))
  if (last.state === 'paused') {
    output.say(`paused; go on with \`holdfast group continue ${group}\`, or end it with \`abort\``)
    return
  }
  if (last.servers.some(({ state }) => state !== 'ready')) {
    throw new Fault(RECOVERY_NOT_COMPLETE, `recovery of ${group}: ${last.state}`)
  }
}

function progressLine({ state, servers, waits_for }: Recovery): string {
  const ready = servers.filter((one) => one.state === 'ready').length
  const moving = servers.filter(({ state: of }) => !AT_REST.has(of))
  const names = moving.map((one) => `${one.name ?? one.instance} ${one.state}`).join(', ')
  const text = waits_for === null ? names : `waits: ${waits_for}`
  return `${state}: ${ready} of ${servers.length} ready${text === '' ? '' : `; ${text}`}`
}

const AT_REST: ReadonlySet<string> = new Set(['waiting', 'ready', 'not_ready', 'skipped'])

export function recoveryLines(one: Recovery): string[] {
  const ended = one.ended_at === null ? '' : `, ended ${one.ended_at}`
  return [
    `recovery ${one.id} after ${one.reason === 'operator' ? 'a request' : `a ${one.reason}`} at ${one.site}: ${one.state}, begun ${one.started_at}${ended}`,
    ...(one.waits_for === null ? [] : [`waits for: ${one.waits_for}`]),
    ...columns(
      ['wave', 'instance', 'state', 'ready after', 'remarks'],
      one.servers.map((server) => [
        server.wave + 1,
        server.name ?? server.instance,
        server.state.replace('_', ' '),
        server.ready_after_ms === null ? null : `${(server.ready_after_ms / 1_000).toFixed(1)} s`,
        remark(server),
      ]),
    ),
  ]
}

function remark(server: Recovery['servers'][number]): string | null {
  const { reason, probes, state, script_before: before, script_after: after } = server
  if (reason !== null) return `${reason.code}: ${reason.message}`
  const again = [before, after].find((script) => script !== null && script.attempts > 1)
  if (again) return `a script was run ${again.attempts} times`
  const open = probes.find(({ ok }) => !ok)
  return state === 'probing' && open !== undefined ? open.detail : null
}
