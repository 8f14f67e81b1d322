import { readFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import { Fault, fault } from '#base/fault.ts'
import type { CheckedReport } from '#client/drill-reports.ts'
import { reportKey } from '#client/drills.ts'
import type { CommandContext } from '../context.ts'
import { openSession, type SessionFlags } from '../session.ts'
import { NO_CREDENTIALS, usageError } from '../usage.ts'

/* `holdfast drill verify`: needs the files and a public key, and nothing that runs. The key is never taken from a file that it is to check.
 * Without --key the installation is asked for its own, if it is known which one is meant. */

export const REPORT_REFUSED = fault({
  code: 'REPORT_REFUSED',
  retry: 'never',
  text: 'A report is not what was signed.',
  hint: 'Get it again with `holdfast drill report`; if it differs, somebody changed the file.',
})

interface Flags extends SessionFlags {
  readonly key?: string
  readonly previous?: string[]
}

export function drillVerifyCommand(parent: Command, context: CommandContext): void {
  const command = context
    .leaf(parent, 'verify')
    .description(
      'check reports: unchanged, signed by the installation, and each after the one before it',
    )
    .argument('<file...>')
    .option('--key <file>', 'public key, PEM, one or several (`holdfast drill key`)')
    .option('--previous <file...>', 'reports that these follow; they are checked as well')
    .addOption(new Option('--data <dir>', 'without --key: whose key it has to be'))
    .addOption(new Option('--credentials <file>', 'without --key: whose key it has to be'))
    .addOption(new Option('--region <name>', 'region, when the credentials name several'))
  command.action(async (files: string[]) => {
    const flags = command.opts<Flags>()
    const output = context.output(command)
    const { checkReports } = await import('#client/drill-reports.ts')
    const pem = await trustedKeys(context, flags)
    const names = [...(flags.previous ?? []), ...files]
    const found = await Promise.all(
      names.map(async (file) => ({ file, bytes: await readFile(file) })),
    )
    const { reports, chain } = checkReports(found, pem)
    for (const one of reports) output.result(resultOf(one), lineOf(one))
    for (const problem of chain) output.result({ chain: problem }, `BROKEN CHAIN  ${problem}`)
    const bad = reports.filter(({ problem }) => problem !== null)
    if (bad.length === 0 && chain.length === 0) return
    const why = [...bad.map(({ file, problem }) => `${file}: ${problem}`), ...chain]
    throw new Fault(REPORT_REFUSED, `verifying ${names.length} reports: ${why.join('; ')}`)
  })
}

async function trustedKeys({ env }: CommandContext, flags: Flags): Promise<string> {
  const file = flags.key ?? env['HOLDFAST_REPORT_KEY']
  if (file !== undefined) {
    const pem = await readFile(file, 'utf8')
    const { keysIn } = await import('#client/drill-reports.ts')
    if (keysIn(pem) === 0) throw usageError(`${file} holds no Ed25519 public key in PEM`)
    return pem
  }
  try {
    return (await reportKey(await openSession(env, flags))).public_key
  } catch (error) {
    if (!(error instanceof Fault) || error.kind !== NO_CREDENTIALS) throw error
    throw usageError(
      'which key is trusted? Give --key FILE (print it once with `holdfast drill key`), or --data DIR to ask the installation',
    )
  }
}

function resultOf({ file, problem, sealed }: CheckedReport): object {
  if (sealed === null) return { file, ok: false, problem }
  const { ordinal, previous, stage, result, drill, teardown } = sealed.report
  const verdict = teardown?.verdict ?? null
  const { hash, key } = sealed
  const told = { ordinal, previous, hash, key, stage, result, teardown: verdict, drill: drill.id }
  return { file, ok: true, problem: null, ...told }
}

function lineOf({ file, problem, sealed }: CheckedReport): string {
  if (sealed === null) return `REFUSED  ${file}: ${problem}`
  const { ordinal, stage, result, drill, made_at, teardown } = sealed.report
  const verdict = teardown === null ? '' : `, ${teardown.verdict.replace('_', ' ')}`
  const made = new Date(made_at).toISOString()
  return `ok  ${file}: report ${ordinal} of ${made}, drill ${drill.name}, ${stage}, ${result.replace('_', ' ')}${verdict}; key ${sealed.key.slice(0, 16)}`
}
