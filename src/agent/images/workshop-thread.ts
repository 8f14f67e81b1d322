import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as after } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { isFault } from '#base/fault.ts'
import { LOCKED, lockFile, writeFileWhole } from '#base/system/files.ts'
import { buildImage } from './build.ts'
import { BUILT_IN, type BuiltIn, recipe } from './built-in.ts'
import { findBuilt, findFile, findImage, imagePath, lockPath, recordPath } from './image-files.ts'
import { providePackages } from './packages.ts'
import { encodeRecord, type ImageRecord } from './record.ts'
import type { WorkshopMessage, WorkshopTask } from './workshop.ts'

/* The thread that makes one image, or takes the checksum of one; see workshop.ts. */

/** Another agent with the same directory may be at it. */
const LOCK_POLL_MS = 100

const { directory, image, builtIn } = workerData as WorkshopTask
const stop = new AbortController()
const { signal } = stop
const tell = (message: WorkshopMessage) => parentPort?.postMessage(message)
const say = (text: string) => tell({ kind: 'said', text })
parentPort?.once('message', () => stop.abort())

async function work(): Promise<ImageRecord> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const lock = await waitForLock()
  try {
    if (!builtIn) return await describe(image, null)
    const one = BUILT_IN.find(({ name }) => name === image)
    if (one === undefined) throw new Error(`${image} is no built-in image`)
    return (await findBuilt(directory, image)) ?? (await build(one))
  } finally {
    lock.release()
  }
}

async function waitForLock(): Promise<{ release(): void }> {
  for (let told = false; ; told = true) {
    try {
      return lockFile(lockPath(directory))
    } catch (error) {
      if (!isFault(error, LOCKED)) throw error
      if (!told) say('waiting for another process that makes an image here')
      await after(LOCK_POLL_MS, undefined, { signal })
    }
  }
}

async function build(one: BuiltIn): Promise<ImageRecord> {
  // What an earlier process left when it was killed.
  for (const name of await readdir(directory)) {
    if (name.startsWith('.new-')) await rm(join(directory, name), { recursive: true, force: true })
  }
  const packages = await providePackages({ directory: join(directory, 'packages'), signal, say })
  say(`making the image ${one.name}`)
  const fresh = join(directory, `.new-${one.name}.raw`)
  try {
    await buildImage(one, packages, fresh, signal)
    await syncFile(fresh)
    await rename(fresh, imagePath(directory, one.name))
  } finally {
    await rm(fresh, { force: true })
  }
  return await describe(one.name, recipe())
}

/** Reads the whole file; its record is stored, durably. */
async function describe(name: string, made: string | null): Promise<ImageRecord> {
  const path = imagePath(directory, name)
  for (;;) {
    const found = await findImage(directory, name)
    if (found === undefined) throw new Error(`${path} is not there`)
    if (found.record !== undefined && found.record.recipe === made) return found.record
    const hash = createHash('sha256')
    for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024, signal })) {
      hash.update(chunk as Buffer)
    }
    const after = await findFile(path)
    // Somebody copies to it right now: once more.
    if (after === undefined || after.modifiedNs !== found.file.modifiedNs) continue
    const record = { image: name, ...after, sha256: hash.digest('hex'), recipe: made }
    await writeFileWhole(recordPath(directory, name), encodeRecord(record))
    return record
  }
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

try {
  tell({ kind: 'made', record: await work() })
} catch (error) {
  tell({ kind: 'failed', reason: error instanceof Error ? error.message : String(error) })
}
parentPort?.close()
