import { mkdir } from 'node:fs/promises'
import type { Log } from '#base/log.ts'
import type { ImageCommands } from '#agent/compute/commands.ts'
import type { ExportTable } from '#agent/nbd/exports.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import { type Fills, openFills } from './fills.ts'
import { openLibrary } from './library.ts'

/* Images of one site, and volumes that begin as one. docs/operating/images.md says what an operator sees of it.
 *
 *     image.list, image.prepare ──► library.ts ──► workshop.ts ──(thread)──► packages.ts, build.ts ──► guest-files.ts, boot-disk.ts
 *     volume.fill ──► fills.ts ──► copy-image.ts ──► a volume
 */

export interface Images {
  readonly commands: ImageCommands
  readonly fills: Fills
  /** Ends what is under way; it goes on with the next start. */
  close(): Promise<void>
}

export interface ImagesOptions {
  /** Of the images; several agents may have the same one. */
  readonly directory: string
  /** Of the fills of this agent. */
  readonly fillDirectory: string
  readonly volumes: VolumeStore
  readonly exports: ExportTable
  readonly hasSnapshots: (volume: string) => boolean
  readonly log: Log
}

export async function openImages(options: ImagesOptions): Promise<Images> {
  const { directory, fillDirectory, log } = options
  // There for an operator's own images. An agent without it stores volumes as well as ever.
  await mkdir(directory, { recursive: true, mode: 0o700 }).catch((error: unknown) =>
    log.warn({ directory, err: error }, 'the directory of images cannot be made'),
  )
  const library = openLibrary({ directory, log })
  const fills = await openFills({ ...options, directory: fillDirectory, library })
  return {
    fills,
    commands: {
      images: async () => ({ images: [...(await library.list())] }),
      prepareImage: async ({ image }) => await library.prepare(image),
      fillVolume: async (request) => await fills.fill(request),
    },
    async close() {
      await fills.close()
      await library.close()
    },
  }
}
