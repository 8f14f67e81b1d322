import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { Fault, fault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import type { ApiSession } from '#client/api.ts'
import {
  deleteDivergence,
  type Divergence,
  keptRanges,
  listDivergences,
  showDivergence,
} from '#client/protection.ts'
import type { CommandContext } from '../context.ts'
import { exportDivergence, type ExportFormat } from '../divergence-export.ts'
import { columns } from '../output.ts'
import { bytesText, createProgress } from '../progress.ts'
import { apiAction, apiLeaf } from '../session.ts'
import { usageError } from '../usage.ts'

/* `holdfast divergence`: what a site had acknowledged alone before the other site's data came back over it. */

export const EXPORT_INCOMPLETE = fault({
  code: 'EXPORT_INCOMPLETE',
  retry: 'never',
  text: 'Some blocks of the divergence record are damaged at the site that keeps it. All others were saved.',
  hint: 'The member `unreadable` of the manifest names them; they are holes in the files. Look at the kernel log of that site: its disk has changed what it held.',
})

const RANGES_SHOWN = 50

export function divergenceCommand(command: Command, context: CommandContext): void {
  command.description('writes that only a losing site had: list, look at, export, delete')
  const leaf = (name: string) => apiLeaf(context, command, name)

  const list = leaf('list')
    .description('list the divergence records')
    .option('--group <id>', 'only those of this group')
  apiAction<{ group?: string }>(context, list, async (api, output, { group }) => {
    const found = await listDivergences(api, group)
    output.result(found, table(found.divergences))
    if (found.silent_sites.length > 0) {
      output.say(`not asked, because silent: ${found.silent_sites.join(', ')}; there may be more`)
    }
  })

  const show = leaf('show')
    .description('show a divergence record with its ranges')
    .argument('<divergence>')
  apiAction(context, show, async (api, output, _, id = '') => {
    const record = await showDivergence(api, id)
    const volumes = await withRanges(api, record)
    output.result({ ...record, volumes }, [
      ...table([record]),
      `${record.why.replace(/\.$/, '')}. Kept at ${record.site}, overwritten with the data of ${record.winner}.`,
      ...(record.reason === null ? [] : [record.reason]),
      ...volumes.flatMap(({ volume, pair, ranges, bytes }) => [
        '',
        `volume ${volume} (pair ${pair}): ${bytesText(bytes)} in ${ranges.length} ranges`,
        ...columns(
          ['offset', 'length'],
          ranges.slice(0, RANGES_SHOWN).map(({ offset, length }) => [offset, length]),
        ),
        ...(ranges.length > RANGES_SHOWN ? [`and ${ranges.length - RANGES_SHOWN} more`] : []),
      ]),
    ])
  })

  const save = leaf('export')
    .description('save the bytes of a record, with a manifest')
    .argument('<divergence>')
    .requiredOption('--to <directory>', 'a directory that does not exist yet')
    .option(
      '--format <format>',
      'sparse: one file per volume, each range at its place; ranges: one file per range',
      'sparse',
    )
    .option('--volume <id>', 'only this volume')
  apiAction<{ to: string; format: string; volume?: string }>(
    context,
    save,
    async (api, output, flags, id = '') => {
      const { format } = flags
      if (!isFormat(format)) throw usageError(`--format ${format} is neither sparse nor ranges`)
      const record = await showDivergence(api, id)
      const volumes = (await withRanges(api, record)).filter(
        ({ volume }) => flags.volume === undefined || volume === flags.volume,
      )
      if (volumes.length === 0) throw usageError(`the record has no volume ${flags.volume ?? ''}`)
      const directory = resolve(flags.to)
      const progress = createProgress(context.streams, output, systemClock)
      const total = volumes.reduce((sum, { bytes }) => sum + bytes, 0)
      let unreadable
      try {
        unreadable = await exportDivergence({
          api,
          record,
          volumes,
          directory,
          format,
          onBytes: (done) =>
            progress.update(
              `${Math.floor((100 * done) / Math.max(1, total))} %  ${bytesText(done)} of ${bytesText(total)}`,
              { bytes: done, total_bytes: total },
            ),
        })
      } finally {
        progress.end()
      }
      const manifest = join(directory, 'manifest.json')
      const lost = unreadable.reduce((sum, { length }) => sum + length, 0)
      if (lost > 0) {
        const doing = `exporting ${id} to ${directory}: ${bytesText(lost)} of ${bytesText(total)} cannot be read`
        throw new Fault(EXPORT_INCOMPLETE, doing, { manifest, unreadable })
      }
      output.result(
        { divergence: id, directory, manifest, bytes: total },
        `${bytesText(total)} saved to ${directory}; ${manifest} says what is what`,
      )
    },
  )

  const remove = leaf('delete')
    .description('delete a record for good')
    .argument('<divergence>')
    .option('--yes', 'you know that these bytes exist nowhere else')
  apiAction<{ yes?: boolean }>(context, remove, async (api, output, flags, id = '') => {
    if (flags.yes !== true) {
      const { bytes } = await showDivergence(api, id)
      throw usageError(
        `${bytesText(bytes)} that exist nowhere else would be gone for good; --yes is required`,
      )
    }
    const gone = await deleteDivergence(api, id)
    output.result(gone, `${id}: deleted`)
  })
}

const isFormat = (text: string): text is ExportFormat => text === 'sparse' || text === 'ranges'

async function withRanges(api: ApiSession, record: Divergence) {
  const volumes = []
  for (const { volume, pair, size_bytes, bytes } of record.volumes) {
    const ranges = record.state === 'kept' ? await keptRanges(api, record.id, volume) : []
    volumes.push({ volume, pair, size_bytes, bytes, ranges })
  }
  return volumes
}

const table = (records: readonly Divergence[]): string[] =>
  columns(
    ['id', 'group', 'site', 'epochs', 'time', 'state', 'bytes', 'volumes'],
    records.map((one) => [
      one.id,
      one.group,
      one.site,
      `${one.base_epoch} to ${one.epoch}`,
      one.at,
      one.state,
      bytesText(one.bytes),
      one.volumes.length,
    ]),
  )
