import { readdir } from 'node:fs/promises'
import { hasCode } from '#base/system/files.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { IMAGE_FAILED, IMAGE_UNKNOWN } from '#agent/compute/faults.ts'
import type { ImageInfo } from '#wire/site/servers.ts'
import { DISK_BYTES } from './boot-disk.ts'
import { BUILT_IN, recipe } from './built-in.ts'
import { findImage, IMAGE_NAME, imagePath } from './image-files.ts'
import type { ImageRecord } from './record.ts'
import { startWorkshop, type WorkshopJob } from './workshop.ts'

/* The images of one site: the built-in ones, and whatever raw disk an operator put into the directory as NAME.raw.
 *
 *     absent ──► building ──► ready          building: packages are fetched, the image is made, or its checksum is taken
 *                   │
 *                   └──► failed (reason), told once; the next wish for the image is a new attempt
 */

export interface ReadyImage {
  readonly path: string
  readonly record: ImageRecord
}

export interface Library {
  list(): Promise<readonly ImageInfo[]>
  /** Throws IMAGE_UNKNOWN. */
  show(image: string): Promise<ImageInfo>
  /** Begins to make it available if it is not. Throws IMAGE_UNKNOWN. */
  prepare(image: string): Promise<ImageInfo>
  /** Waits until it is available. Throws IMAGE_UNKNOWN, IMAGE_FAILED. */
  provide(image: string): Promise<ReadyImage>
  /** Ends what is being made. */
  close(): Promise<void>
}

export interface LibraryOptions {
  readonly directory: string
  readonly log: Log
}

/** Attempts that failed are told as long as nobody wanted the image again. */
type Attempt = { readonly job: WorkshopJob } | { readonly failed: string }

export function openLibrary({ directory, log }: LibraryOptions): Library {
  const attempts = new Map<string, Attempt>()
  let closed = false
  const isBuiltIn = (image: string) => BUILT_IN.some(({ name }) => name === image)

  async function ready(image: string): Promise<ReadyImage | undefined> {
    const record = (await findImage(directory, image))?.record
    const isOurs = !isBuiltIn(image) || record?.recipe === recipe()
    return record === undefined || !isOurs
      ? undefined
      : { path: imagePath(directory, image), record }
  }

  async function info(image: string): Promise<ImageInfo> {
    if (!IMAGE_NAME.test(image)) throw new Fault(IMAGE_UNKNOWN, `image ${image}`, { image })
    const one = await ready(image)
    if (one !== undefined) {
      const { sizeBytes, sha256 } = one.record
      return { image, state: 'ready', size_bytes: sizeBytes, sha256, reason: null }
    }
    const found = await findImage(directory, image)
    if (found === undefined && !isBuiltIn(image)) {
      throw new Fault(IMAGE_UNKNOWN, `image ${image}`, { image })
    }
    const attempt = attempts.get(image)
    const failed = attempt !== undefined && 'failed' in attempt ? attempt.failed : null
    return {
      image,
      state: attempt === undefined ? 'absent' : failed === null ? 'building' : 'failed',
      size_bytes: isBuiltIn(image) ? DISK_BYTES : (found?.file.sizeBytes ?? 0),
      sha256: null,
      reason: failed,
    }
  }

  function begin(image: string): WorkshopJob {
    const running = attempts.get(image)
    if (running !== undefined && 'job' in running) return running.job
    const job = startWorkshop({ directory, image, builtIn: isBuiltIn(image) }, (text) =>
      log.info({ image }, text),
    )
    attempts.set(image, { job })
    void job.result.then((result) => {
      if (!('failed' in result)) {
        attempts.delete(image)
        log.info({ image, sha256: result.sha256 }, 'image is ready')
        return
      }
      attempts.set(image, { failed: result.failed })
      if (!closed) log.error({ image, reason: result.failed }, 'image could not be made')
    })
    return job
  }

  return {
    show: info,
    async list() {
      const own = (await filesIn(directory))
        .filter((name) => name.endsWith('.raw'))
        .map((name) => name.slice(0, -'.raw'.length))
        .filter((name) => IMAGE_NAME.test(name) && !isBuiltIn(name))
      const names = [...BUILT_IN.map(({ name }) => name), ...own.toSorted()]
      return await Promise.all(names.map(info))
    },
    async prepare(image) {
      const before = await info(image)
      if (before.state === 'ready' || before.state === 'building') return before
      if (before.state === 'failed') {
        attempts.delete(image)
        return before
      }
      begin(image)
      return await info(image)
    },
    async provide(image) {
      await info(image)
      const one = await ready(image)
      if (one !== undefined) return one
      const result = await begin(image).result
      if ('failed' in result) {
        throw new Fault(IMAGE_FAILED, `image ${image}: ${result.failed}`, {
          image,
          reason: result.failed,
        })
      }
      return { path: imagePath(directory, image), record: result }
    },
    async close() {
      closed = true
      for (const attempt of attempts.values()) if ('job' in attempt) await attempt.job.stop()
    },
  }
}

async function filesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return []
    throw error
  }
}
