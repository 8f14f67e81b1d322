import type { Command } from 'commander'
import { sleep } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import type { ApiSession } from '#client/api.ts'
import {
  cancelVerification,
  showOperation,
  showVerification,
  type Verification,
  verifyGroup,
} from '#client/protection.ts'
import type { CommandContext } from '../context.ts'
import { limitOf, positiveInteger } from '../jobs.ts'
import type { Output } from '../output.ts'
import { columns } from '../output.ts'
import { bytesText, createProgress } from '../progress.ts'
import { apiAction } from '../session.ts'
import { usageError } from '../usage.ts'

/* `holdfast group verify`: compares both sites of a group while it is used. Leaving the command does not end the verification. */

export const VERIFY_FOUND = fault({
  code: 'VERIFY_FOUND',
  retry: 'never',
  text: 'The two sites are not the same everywhere.',
  hint: 'Look at the ranges. Repeat with --repair to send them again from the site that writes; then find out what changed them at the other one.',
})
export const VERIFY_INCOMPLETE = fault({
  code: 'VERIFY_INCOMPLETE',
  retry: 'later',
  text: 'The verification did not come to its end.',
  hint: 'Show the group, then verify again.',
})

const POLL_MS = 500
const RATE_MIB_MAX = 1_048_576
const RANGES_SHOWN = 20

interface Flags {
  readonly repair?: boolean
  readonly watch?: boolean
  readonly show?: boolean
  readonly cancel?: boolean
  readonly rate?: string
  readonly wait: boolean
  readonly timeout: string
}

export function groupVerifyCommand(command: Command, context: CommandContext): void {
  command
    .description('compare both sites of a group while it is used, and wait for the end')
    .argument('<group>')
    .option('--repair', 'send again what differs, from the site that writes')
    .option('--rate <mib>', 'compare at most so many MiB per second')
    .option('--watch', 'follow the verification that is under way instead of beginning one')
    .option('--show', 'print the one under way, or the last one, and leave')
    .option('--cancel', 'end the one under way')
    .option('--no-wait', 'begin it, print the operation and leave')
    .option('--timeout <seconds>', 'longest wait for its end', '86400')
  apiAction<Flags>(context, command, async (api, output, flags, group = '') => {
    const modes = [flags.watch, flags.show, flags.cancel].filter((one) => one === true)
    if (modes.length > 1) throw usageError('only one of --watch, --show and --cancel makes sense')
    if (flags.cancel === true) {
      const operation = await cancelVerification(api, group)
      output.result({ operation_id: operation }, `${group}: verification is being cancelled`)
      return
    }
    if (flags.show === true) {
      const found = await showVerification(api, group)
      output.result(found, lines(found))
      return
    }
    const rate = flags.rate === undefined ? 0 : positiveInteger('--rate', flags.rate, RATE_MIB_MAX)
    const begun =
      flags.watch === true
        ? (await showVerification(api, group)).operation_id
        : await verifyGroup(api, group, {
            repair: flags.repair === true,
            rateBytes: rate * 1024 * 1024,
          })
    if (begun === null) {
      const found = await showVerification(api, group)
      output.say(`${group}: no verification is under way; this is the last one`)
      return conclude(output, found)
    }
    if (!flags.wait) {
      output.result({ operation_id: begun }, `verifying ${group}: operation ${begun}`)
      return
    }
    output.say(`verifying ${group}: operation ${begun}`)
    await follow(api, context, output, group, begun, limitOf(flags))
    conclude(output, await showVerification(api, group))
  })
}

async function follow(
  api: ApiSession,
  context: CommandContext,
  output: Output,
  group: string,
  operation: string,
  limitMs: number,
): Promise<void> {
  const progress = createProgress(context.streams, output, systemClock)
  const endMs = systemClock.bootMs() + limitMs
  let before: { readonly bytes: number; readonly ms: number } | null = null
  let speed = 0
  try {
    for (;;) {
      const { status, error_code, fail_reason } = await showOperation(api, operation)
      if (status === 'succeeded') return
      if (status === 'failed' || status === 'cancelled') {
        const reason = `${error_code ?? status} ${fail_reason ?? ''}`.trim()
        throw new Fault(VERIFY_INCOMPLETE, `verifying ${group}: ${reason}`)
      }
      if (systemClock.bootMs() > endMs) {
        throw new Fault(VERIFY_INCOMPLETE, `verifying ${group} takes longer than --timeout`)
      }
      const { run } = await showVerification(api, group)
      if (run !== null && run.run === operation) {
        const now = { bytes: run.compared_bytes, ms: systemClock.bootMs() }
        if (before !== null && now.ms > before.ms) {
          speed = (1000 * (now.bytes - before.bytes)) / (now.ms - before.ms)
        }
        before = now
        const percent = Math.floor((100 * run.compared_bytes) / Math.max(1, run.total_bytes))
        const waits = run.state === 'waiting' ? `, waits: ${run.reason ?? 'not in sync'}` : ''
        const differs =
          run.mismatched_bytes === 0 ? '' : `, ${bytesText(run.mismatched_bytes)} differ`
        progress.update(
          `${percent} %  ${bytesText(run.compared_bytes)} of ${bytesText(run.total_bytes)}, ${bytesText(speed)}/s${differs}${waits}`,
          {
            state: run.state,
            compared_bytes: run.compared_bytes,
            total_bytes: run.total_bytes,
            mismatched_bytes: run.mismatched_bytes,
            repaired_bytes: run.repaired_bytes,
          },
        )
      }
      await sleep(systemClock, POLL_MS)
    }
  } finally {
    progress.end()
  }
}

/** Prints it. Differences that are left make the command fail. */
function conclude(output: Output, found: Verification): void {
  output.result(found, lines(found))
  const { run } = found
  const left = run === null ? 0 : run.mismatched_bytes - run.repaired_bytes
  if (left > 0) throw new Fault(VERIFY_FOUND, `${bytesText(left)} differ in group ${found.group}`)
}

function lines({ group, run, pairs }: Verification): string[] {
  if (run === null) return [`${group}: never verified`]
  const verdict =
    run.mismatched_bytes === 0
      ? 'no difference'
      : `${bytesText(run.mismatched_bytes)} differed, ${bytesText(run.repaired_bytes)} repaired`
  const reason = run.reason === null ? '' : ` (${run.reason})`
  const shown = [
    `${run.state}${reason}: ${bytesText(run.compared_bytes)} of ${bytesText(run.total_bytes)} compared, ${verdict}`,
  ]
  if (run.ranges.length > 0) {
    shown.push(
      ...columns(
        ['pair', 'offset', 'length', 'what', 'repaired'],
        run.ranges
          .slice(0, RANGES_SHOWN)
          .map((one) => [one.pair, one.offset, one.length, one.kind, one.repaired ? 'yes' : 'no']),
      ),
    )
    const more = Math.max(0, run.ranges.length - RANGES_SHOWN) + run.ranges_left_out
    if (more > 0) shown.push(`and ${more} more ranges`)
  }
  return [
    ...shown,
    ...columns(
      ['pair', 'last verified', 'differs'],
      pairs.map((one) => [
        one.pair,
        one.last_verified_at === null ? 'never' : new Date(one.last_verified_at).toISOString(),
        bytesText(one.mismatched_bytes),
      ]),
    ),
  ]
}
