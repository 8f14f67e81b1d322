import { readFile, stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { Fault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import { backUpFile } from '#vault/files/back-up-file.ts'
import { restoreToFile, restoreToStream } from '#vault/files/restore-file.ts'
import { VAULT_DAMAGED } from '#vault/faults.ts'
import type { Manifest } from '#vault/format/manifest.ts'
import { KEY_FILE_BYTES_MAX, KEY_FILE_BYTES_MIN, type VaultSecret } from '#vault/keys/slots.ts'
import { BLOCK_BYTES_DEFAULT } from '#vault/limits.ts'
import { openStore } from '#vault/open-store.ts'
import { initVault, openVault, type Vault } from '#vault/vault.ts'
import type { Damage, VerifyReport } from '#vault/verify/verify.ts'
import type { CommandContext } from '../context.ts'
import { columns, type Output } from '../output.ts'
import { bytesText, createProgress } from '../progress.ts'
import { usageError } from '../usage.ts'

/* `holdfast vault`: backups with nothing but the vault, its key and this program. No server takes part. */

interface VaultFlags {
  readonly vault?: string
  readonly passphraseFile?: string
  readonly keyFile?: string
}

const VAULT_VARIABLE = 'HOLDFAST_VAULT'
const PASSPHRASE_VARIABLE = 'HOLDFAST_VAULT_PASSPHRASE'

export function vaultCommand(command: Command, context: CommandContext): void {
  command.description('a backup vault in a directory or bucket, without any server')
  const clock = systemClock
  const leaf = (parent: Command, name: string) =>
    context
      .leaf(parent, name)
      .option('--vault <place>', `directory or s3://bucket/prefix (or ${VAULT_VARIABLE})`)
      .addOption(
        new Option(
          '--passphrase-file <file>',
          `its first line opens the vault (or ${PASSPHRASE_VARIABLE})`,
        ),
      )
      .option('--key-file <file>', 'a file whose content opens the vault')

  const withVault =
    <F extends VaultFlags>(
      leafCommand: Command,
      act: (vault: Vault, output: Output, flags: F, argument: string) => Promise<void>,
    ) =>
    async (...args: unknown[]): Promise<void> => {
      const flags = leafCommand.opts<F>()
      const output = context.output(leafCommand)
      const argument = typeof args[0] === 'string' ? args[0] : ''
      const store = await openStore(placeOf(flags, context), context.env, clock)
      try {
        const vault = await openVault({ store, clock }, await secretOf(flags, context))
        for (const fault of vault.damaged) output.say(`damaged: ${fault.message}`)
        await act(vault, output, flags, argument)
      } finally {
        store.close()
      }
    }

  const init = leaf(command, 'init')
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

  const ls = leaf(command, 'ls').description('list the checkpoints, oldest first')
  ls.action(
    withVault(ls, async (vault, output) => {
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
    }),
  )

  const show = leaf(command, 'show').description('show a checkpoint').argument('<checkpoint>')
  show.action(
    withVault(show, async (vault, output, _flags, id) => {
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
    }),
  )

  const backup = leaf(command, 'backup')
    .description('back up an image file or block device as one volume')
    .requiredOption('--image <file>', 'what to back up; it must not change meanwhile')
    .option('--volume <id>', 'name of the volume (default: name of the file)')
    .option('--parent <checkpoint>', 'base of the backup; `last` is the latest with this volume')
    .option(
      '--changed <file>',
      'with --parent: read only these ranges, a JSON list of [offset, length]',
    )
    .option('--label <key=value...>', 'labels of the checkpoint')
    .option('--level <number>', 'zstd level, 1 to 19', '1')
  backup.action(
    withVault<BackupFlags>(backup, async (vault, output, flags) => {
      const volume = flags.volume ?? basename(flags.image)
      const parent = await parentOf(vault, volume, flags.parent)
      if (flags.changed !== undefined && parent === undefined) {
        throw usageError('--changed needs a --parent')
      }
      const ranges = flags.changed === undefined ? undefined : await readRanges(flags.changed)
      const progress = createProgress(context.streams, output, clock)
      try {
        const done = await backUpFile(vault, flags.image, {
          volume,
          labels: labelsOf(flags.label ?? []),
          level: levelOf(flags.level),
          ...(parent === undefined ? {} : { parent }),
          ...(ranges === undefined ? {} : { ranges }),
          progress: (bytes, total, stored) =>
            progress.update(
              `${bytesText(bytes)} of ${bytesText(total)} read, ${bytesText(stored)} stored`,
              { bytes, total, stored },
            ),
        })
        progress.end()
        output.result(
          { event: 'checkpoint_made', ...manifestJson(done.manifest), blocks: done.progress },
          `checkpoint ${done.manifest.id}: ${bytesText(done.manifest.storedBytes)} stored in ${done.manifest.durationMs} ms`,
        )
      } finally {
        progress.end()
      }
    }),
  )

  const restore = leaf(command, 'restore')
    .description('write a volume of a checkpoint to a file or block device')
    .argument('<checkpoint>')
    .requiredOption('--to <file>', 'target; a file must not exist unless --overwrite')
    .option('--volume <id>', 'needed when the checkpoint has several')
    .option('--overwrite', 'write over an existing file or block device')
    .option('--salvage', 'leave out what cannot be read instead of stopping, and tell what it was')
  restore.action(
    withVault<RestoreFlags>(restore, async (vault, output, flags, id) => {
      const checkpoint = await vault.checkpoint(id)
      const volume = volumeOf(checkpoint.manifest, flags.volume)
      const progress = createProgress(context.streams, output, clock)
      const lost: { offset: number; length: number; what: string }[] = []
      try {
        const { bytes } = await restoreToFile(checkpoint, volume.id, resolve(flags.to), {
          overwrite: flags.overwrite === true,
          progress: (done) =>
            progress.update(`${bytesText(done)} of ${bytesText(volume.sizeBytes)} restored`, {
              bytes: done,
              total: volume.sizeBytes,
            }),
          ...(flags.salvage === true
            ? {
                damaged: (fault: Fault, offset: number, length: number) =>
                  void lost.push({ offset, length, what: fault.message }),
              }
            : {}),
        })
        progress.end()
        output.result(
          {
            event: 'restored',
            checkpoint: id,
            volume: volume.id,
            to: resolve(flags.to),
            bytes,
            lost,
          },
          [
            `${flags.to}: ${bytesText(bytes)} restored and verified`,
            ...lost.map((one) => `lost: ${one.length} bytes at ${one.offset}: ${one.what}`),
          ],
        )
        if (lost.length > 0) {
          throw new Fault(VAULT_DAMAGED, `restoring ${id}: ${lost.length} blocks were left out`)
        }
      } finally {
        progress.end()
      }
    }),
  )

  const exporting = leaf(command, 'export')
    .description('write a volume of a checkpoint to standard output')
    .argument('<checkpoint>')
    .option('--volume <id>', 'needed when the checkpoint has several')
  exporting.action(
    withVault<VaultFlags & { volume?: string }>(exporting, async (vault, _output, flags, id) => {
      const checkpoint = await vault.checkpoint(id)
      await restoreToStream(
        checkpoint,
        volumeOf(checkpoint.manifest, flags.volume).id,
        process.stdout,
      )
    }),
  )

  const verify = leaf(command, 'verify')
    .description('prove that everything can be restored, or name what cannot')
    .argument('[checkpoint]', 'only what this one needs')
    .option('--data', 'read and check all data, not only the structure')
  verify.action(
    withVault<VaultFlags & { data?: boolean }>(verify, async (vault, output, flags, id) => {
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
    }),
  )

  const remove = leaf(command, 'delete')
    .description('delete a checkpoint; `collect` gives its space back')
    .argument('<checkpoint>')
  remove.action(
    withVault(remove, async (vault, output, _flags, id) => {
      await vault.forget(id)
      output.result({ event: 'checkpoint_deleted', id }, `${id}: deleted`)
    }),
  )

  const lock = leaf(command, 'lock')
    .description('keep a checkpoint until a time; nobody can shorten it')
    .argument('<checkpoint>')
    .requiredOption('--until <time>', 'ISO 8601, e.g. 2030-01-31T00:00:00Z')
  lock.action(
    withVault<VaultFlags & { until: string }>(lock, async (vault, output, flags, id) => {
      const untilMs = Date.parse(flags.until)
      if (!Number.isSafeInteger(untilMs)) throw usageError(`${flags.until} is no time`)
      const until = new Date(await vault.lock(id, untilMs)).toISOString()
      output.result({ event: 'checkpoint_locked', id, until }, `${id}: locked until ${until}`)
    }),
  )

  const collecting = leaf(command, 'collect')
    .description('give back the space of deleted checkpoints; backups may run')
    .option('--grace <seconds>', 'leave packs alone that are younger', '3600')
  collecting.action(
    withVault<VaultFlags & { grace: string }>(collecting, async (vault, output, flags) => {
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
        ...done.revoked.map((session) => `backup ${session} had died and was revoked`),
      ])
    }),
  )

  const key = command.command('key').description('who can open the vault')
  const list = leaf(key, 'list').description('list the key slots')
  list.action(
    withVault(list, async (vault, output) => {
      const slots = await vault.keys()
      output.result(
        { keys: slots.map(({ id, kind, label, created }) => ({ id, kind, label, created })) },
        columns(
          ['id', 'kind', 'label', 'made'],
          slots.map((slot) => [slot.id, slot.kind, slot.label, slot.created]),
        ),
      )
    }),
  )
  const add = leaf(key, 'add')
    .description('add a passphrase or key file')
    .option('--new-passphrase-file <file>', 'its first line')
    .option('--new-key-file <file>', 'at least 32 random bytes')
    .option('--label <text>', 'whose or what it is', '')
  add.action(
    withVault<VaultFlags & { newPassphraseFile?: string; newKeyFile?: string; label: string }>(
      add,
      async (vault, output, flags) => {
        const { newPassphraseFile, newKeyFile, label } = flags
        if ((newPassphraseFile === undefined) === (newKeyFile === undefined)) {
          throw usageError('either --new-passphrase-file or --new-key-file is required')
        }
        const secret =
          newKeyFile === undefined
            ? await passphraseIn(newPassphraseFile ?? '')
            : await keyFileIn(newKeyFile)
        const slot = await vault.addKey(secret, { label })
        output.result({ event: 'key_added', id: slot.id }, `key ${slot.id} added`)
      },
    ),
  )
  const removeKey = leaf(key, 'remove').description('remove a key slot').argument('<key>')
  removeKey.action(
    withVault(removeKey, async (vault, output, _flags, id) => {
      await vault.removeKey(id)
      output.result({ event: 'key_removed', id }, `key ${id} removed`)
    }),
  )
  const rotate = leaf(key, 'rotate').description('use a new data key from the next backup on')
  rotate.action(
    withVault(rotate, async (vault, output) => {
      await vault.rotateDataKey()
      output.result({ event: 'key_rotated' }, 'the next backup uses a new data key')
    }),
  )
}

interface BackupFlags extends VaultFlags {
  readonly image: string
  readonly volume?: string
  readonly parent?: string
  readonly changed?: string
  readonly label?: string[]
  readonly level: string
}

interface RestoreFlags extends VaultFlags {
  readonly to: string
  readonly volume?: string
  readonly overwrite?: boolean
  readonly salvage?: boolean
}

function placeOf(flags: VaultFlags, context: CommandContext): string {
  const place = flags.vault ?? context.env[VAULT_VARIABLE]
  if (place === undefined || place === '')
    throw usageError(`--vault or ${VAULT_VARIABLE} is required`)
  return place
}

async function secretOf(flags: VaultFlags, context: CommandContext): Promise<VaultSecret> {
  if (flags.keyFile !== undefined) return await keyFileIn(flags.keyFile)
  if (flags.passphraseFile !== undefined) return await passphraseIn(flags.passphraseFile)
  const passphrase = context.env[PASSPHRASE_VARIABLE]
  if (passphrase !== undefined && passphrase !== '') return { kind: 'passphrase', passphrase }
  throw usageError(`--passphrase-file, --key-file or ${PASSPHRASE_VARIABLE} is required`)
}

async function passphraseIn(file: string): Promise<VaultSecret> {
  const passphrase = (await readFile(file, 'utf8')).split(/\r?\n/)[0] ?? ''
  if (passphrase === '') throw usageError(`${file} has no first line`)
  return { kind: 'passphrase', passphrase }
}

async function keyFileIn(file: string): Promise<VaultSecret> {
  const { size } = await stat(file)
  if (size < KEY_FILE_BYTES_MIN || size > KEY_FILE_BYTES_MAX) {
    throw usageError(
      `a key file has ${KEY_FILE_BYTES_MIN} to ${KEY_FILE_BYTES_MAX} bytes, ${file} ${size}`,
    )
  }
  return { kind: 'key-file', content: await readFile(file) }
}

async function parentOf(
  vault: Vault,
  volume: string,
  parent: string | undefined,
): Promise<string | undefined> {
  if (parent !== 'last') return parent
  const all = await vault.checkpoints(() => undefined)
  return all.findLast((one) => one.volumes.some(({ id }) => id === volume))?.id
}

async function readRanges(file: string): Promise<[number, number][]> {
  let ranges: unknown
  try {
    ranges = JSON.parse(await readFile(file, 'utf8'))
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    throw usageError(`${file} is no JSON`)
  }
  const isRange = (range: unknown): range is [number, number] =>
    Array.isArray(range) &&
    range.length === 2 &&
    range.every((number) => Number.isSafeInteger(number) && number >= 0)
  if (!Array.isArray(ranges) || !ranges.every(isRange)) {
    throw usageError(`${file} is no list of [offset, length]`)
  }
  return ranges
}

function labelsOf(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=')
      if (at < 1) throw usageError(`${pair} is no key=value`)
      return [pair.slice(0, at), pair.slice(at + 1)]
    }),
  )
}

function levelOf(text: string): number {
  const level = Number(text)
  if (!Number.isInteger(level) || level < 1 || level > 19)
    throw usageError(`${text} is no zstd level`)
  return level
}

const labelText = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ') || 'no labels'

function volumeOf(manifest: Manifest, id: string | undefined): Manifest['volumes'][number] {
  const found =
    id === undefined && manifest.volumes.length === 1
      ? manifest.volumes[0]
      : manifest.volumes.find((volume) => volume.id === id)
  if (found !== undefined) return found
  const names = manifest.volumes.map((volume) => volume.id).join(', ')
  throw usageError(`--volume must name one of ${names}`)
}

const manifestJson = (manifest: Manifest) => ({
  id: manifest.id,
  created: new Date(manifest.createdMs).toISOString(),
  parent: manifest.parent ?? null,
  labels: manifest.labels,
  volumes: manifest.volumes.map(({ id, sizeBytes }) => ({ id, size_bytes: sizeBytes })),
  stored_bytes: manifest.storedBytes,
  duration_ms: manifest.durationMs,
})

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
