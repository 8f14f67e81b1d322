import { readFile } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import type { Command } from 'commander'
import { Fault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import { backUpFile } from '#vault/files/back-up-file.ts'
import { restoreToFile, restoreToStream } from '#vault/files/restore-file.ts'
import { VAULT_DAMAGED } from '#vault/faults.ts'
import type { Manifest } from '#vault/format/manifest.ts'
import type { Vault } from '#vault/vault.ts'
import type { CommandContext } from '../context.ts'
import { bytesText, createProgress } from '../progress.ts'
import { usageError } from '../usage.ts'
import { manifestJson } from './vault-manifest.ts'
import { vaultAction, type VaultFlags, vaultLeaf } from './vault-open.ts'

/* `holdfast vault backup`, `restore` and `export`: volumes in and out of a vault. */

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

export function vaultVolumeCommands(command: Command, context: CommandContext): void {
  const leaf = (name: string) => vaultLeaf(context, command, name)

  const backup = leaf('backup')
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
  vaultAction<BackupFlags>(context, backup, async (vault, output, flags) => {
    const volume = flags.volume ?? basename(flags.image)
    const parent = await parentOf(vault, volume, flags.parent)
    if (flags.changed !== undefined && parent === undefined) {
      throw usageError('--changed needs a --parent')
    }
    const ranges = flags.changed === undefined ? undefined : await readRanges(flags.changed)
    const progress = createProgress(context.streams, output, systemClock)
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
  })

  const restore = leaf('restore')
    .description('write a volume of a checkpoint to a file or block device')
    .argument('<checkpoint>')
    .requiredOption('--to <file>', 'target; a file must not exist unless --overwrite')
    .option('--volume <id>', 'needed when the checkpoint has several')
    .option('--overwrite', 'write over an existing file or block device')
    .option('--salvage', 'leave out what cannot be read instead of stopping, and tell what it was')
  vaultAction<RestoreFlags>(context, restore, async (vault, output, flags, id) => {
    const checkpoint = await vault.checkpoint(id)
    const volume = volumeOf(checkpoint.manifest, flags.volume)
    const progress = createProgress(context.streams, output, systemClock)
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
  })

  const exporting = leaf('export')
    .description('write a volume of a checkpoint to standard output')
    .argument('<checkpoint>')
    .option('--volume <id>', 'needed when the checkpoint has several')
  vaultAction<VaultFlags & { volume?: string }>(
    context,
    exporting,
    async (vault, _output, flags, id) => {
      const checkpoint = await vault.checkpoint(id)
      await restoreToStream(
        checkpoint,
        volumeOf(checkpoint.manifest, flags.volume).id,
        process.stdout,
      )
    },
  )
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

function volumeOf(manifest: Manifest, id: string | undefined): Manifest['volumes'][number] {
  const found =
    id === undefined && manifest.volumes.length === 1
      ? manifest.volumes[0]
      : manifest.volumes.find((volume) => volume.id === id)
  if (found !== undefined) return found
  const names = manifest.volumes.map((volume) => volume.id).join(', ')
  throw usageError(`--volume must name one of ${names}`)
}
