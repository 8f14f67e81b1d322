import type { Command } from 'commander'
import { Fault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import { VAULT_DAMAGED } from '#vault/faults.ts'
import { BLOCK_BYTES_DEFAULT } from '#vault/limits.ts'
import { openStore } from '#vault/open-store.ts'
import { initVault } from '#vault/vault.ts'
import type { Damage, VerifyReport } from '#vault/verify/verify.ts'
import type { CommandContext } from '../context.ts'
import { columns, type Output } from '../output.ts'
import { bytesText, createProgress } from '../progress.ts'
import { usageError } from '../usage.ts'
import { vaultKeyCommand } from './vault-key.ts'
import { labelText, manifestJson } from './vault-manifest.ts'
import { placeOf, secretOf, vaultAction, type VaultFlags, vaultLeaf } from './vault-open.ts'
import { vaultVolumeCommands } from './vault-volume.ts'

/* `holdfast vault`: backups with nothing but the vault, its key and this program. No server takes part. */

export function vaultCommand(command: Command, context: CommandContext): void {
  command.description('a backup vault in a directory or bucket, without any server')
  const clock = systemClock
  const leaf = (name: string) => vaultLeaf(context, command, name)

  const init = leaf('init')
    .description('make a vault')
    .option('--block-size <bytes>', 'power of two, 4096 to 8388608', String(BLOCK_BYTES_DEFAULT))
  init.action(async (flags: VaultFlags & { blockSize: string }) => {
    const place = placeOf(flags, context)
    const store = await openStore(place, context.env, clock, { create: true })
    try {
      const blockBytes = Number(flags.blockSize)
      const vault = await initVault({ store, clock }, await secretOf(flags, context), {
        blockBytes,
      })
      const { id } = vault.header
      context
        .output(init)
        .result({ event: 'vault_made', vault: place, id, block_bytes: blockBytes }, [
          `${place}: vault ${id}`,
          'Without its passphrase or key file nobody can read it, you included. Keep a copy of it elsewhere.',
        ])
    } finally {
      store.close()
    }
  })

  const ls = leaf('ls').description('list the checkpoints, oldest first')
  vaultAction(context, ls, async (vault, output) => {
    const damaged: Fault[] = []
    const all = await vault.checkpoints((fault) => damaged.push(fault))
    for (const fault of damaged) output.say(`damaged: ${fault.message}`)
    output.result(
      {
        checkpoints: all.map(manifestJson),
        damaged: damaged.map((fault) => ({ code: fault.code, ...fault.detail })),
      },
      columns(
        ['id', 'made', 'volumes', 'size', 'stored', 'labels'],
        all.map((one) => [
          one.id,
          new Date(one.createdMs).toISOString(),
          one.volumes.length,
          bytesText(one.volumes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)),
          bytesText(one.storedBytes),
          labelText(one.labels),
        ]),
      ),
    )
    if (damaged.length > 0) throw damaged[0] as Fault
  })

  const show = leaf('show').description('show a checkpoint').argument('<checkpoint>')
  vaultAction(context, show, async (vault, output, _flags, id) => {
    const { manifest } = await vault.checkpoint(id)
    const lockedMs = await vault.lockedUntil(id)
    const locked = lockedMs > 0 ? new Date(lockedMs).toISOString() : null
    output.result({ ...manifestJson(manifest), locked_until: locked }, [
      `${manifest.id}, made ${new Date(manifest.createdMs).toISOString()} in ${manifest.durationMs} ms`,
      `${bytesText(manifest.storedBytes)} stored${locked === null ? '' : `, locked until ${locked}`}`,
      `${manifest.parent === undefined ? 'a full backup' : `based on ${manifest.parent}`}; ${labelText(manifest.labels)}`,
      ...columns(
        ['volume', 'bytes'],
        manifest.volumes.map((volume) => [volume.id, volume.sizeBytes]),
      ),
    ])
  })

  vaultVolumeCommands(command, context)

  const verify = leaf('verify')
    .description('prove that everything can be restored, or name what cannot')
    .argument('[checkpoint]', 'only what this one needs')
    .option('--data', 'read and check all data, not only the structure')
  vaultAction<VaultFlags & { data?: boolean }>(
    context,
    verify,
    async (vault, output, flags, id) => {
      const progress = createProgress(context.streams, output, clock)
      try {
        const report = await vault.verify({
          data: flags.data === true,
          ...(id === '' ? {} : { checkpoint: id }),
          progress: (done, total) =>
            progress.update(`${done} of ${total} packs checked`, { packs: done, total }),
        })
        progress.end()
        showReport(output, report, flags.data === true)
        if (report.damage.length > 0) throw damageFault(report.damage)
      } finally {
        progress.end()
      }
    },
  )

  const remove = leaf('delete')
    .description('delete a checkpoint; `collect` gives its space back')
    .argument('<checkpoint>')
  vaultAction(context, remove, async (vault, output, _flags, id) => {
    await vault.forget(id)
    output.result({ event: 'checkpoint_deleted', id }, `${id}: deleted`)
  })

  const lock = leaf('lock')
    .description('keep a checkpoint until a time; nobody can shorten it')
    .argument('<checkpoint>')
    .requiredOption('--until <time>', 'ISO 8601, e.g. 2030-01-31T00:00:00Z')
  vaultAction<VaultFlags & { until: string }>(context, lock, async (vault, output, flags, id) => {
    const untilMs = Date.parse(flags.until)
    if (!Number.isSafeInteger(untilMs)) throw usageError(`${flags.until} is no time`)
    const until = new Date(await vault.lock(id, untilMs)).toISOString()
    output.result({ event: 'checkpoint_locked', id, until }, `${id}: locked until ${until}`)
  })

  const collecting = leaf('collect')
    .description('give back the space of deleted checkpoints; backups may run')
    .option('--grace <seconds>', 'leave packs alone that are younger', '3600')
  vaultAction<VaultFlags & { grace: string }>(context, collecting, async (vault, output, flags) => {
    const graceMs = Number(flags.grace) * 1000
    if (!(graceMs >= 0)) throw usageError(`${flags.grace} is no number of seconds`)
    const done = await vault.collect({ graceMs, progress: (text) => output.say(text) })
    output.result({ event: 'collected', ...done }, [
      `${done.checkpointsDeleted} checkpoints and ${done.packsDeleted} packs deleted, ${done.packsRewritten} rewritten: ${bytesText(done.bytesFreed - done.bytesWritten)} given back`,
      ...(done.waitingFor.length === 0
        ? []
        : [
            `${bytesText(done.bytesWaiting)} wait for backups that run: ${done.waitingFor.join(', ')}`,
          ]),
      ...done.held.map((key) => `${key}: a legal hold keeps it in the store`),
      ...done.revoked.map((session) => `backup ${session} had died and was revoked`),
    ])
  })

  vaultKeyCommand(command.command('key'), context)
}

function showReport(output: Output, report: VerifyReport, data: boolean): void {
  const found =
    report.damage.length === 0
      ? [
          `${report.checkpoints} checkpoints and ${report.packs} packs are whole${data ? ', all data read' : ' in structure'}`,
        ]
      : [
          ...report.damage.map((one) => `damaged ${one.kind} ${one.object}: ${one.what}`),
          ...report.affected.flatMap((one) => [
            ...one.ranges.map(
              ({ offset, length }) =>
                `checkpoint ${one.checkpoint}, volume ${one.volume}: ${length} bytes at ${offset} cannot be read`,
            ),
            ...(one.rangesMore > 0 ? [`and ${one.rangesMore} more ranges`] : []),
          ]),
        ]
  output.result({ event: 'verified', ...report }, found)
}

const damageFault = (damage: readonly Damage[]): Fault =>
  new Fault(VAULT_DAMAGED, `verifying: ${damage.length} objects or records are damaged or missing`)
