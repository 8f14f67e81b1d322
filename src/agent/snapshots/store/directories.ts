import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode, syncDirectory } from '#base/system/files.ts'

/* The folders of the snapshots of one agent.
 *
 *     DIR/ID/         a snapshot
 *     DIR/.new-ID/    being taken; worth nothing before its rename to DIR/ID
 *     DIR/.gone-ID/   being deleted; worth nothing after its rename from DIR/ID
 */

/** Names of the snapshots; leftovers of a process that died are removed. */
export async function findSnapshots(directory: string): Promise<string[]> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const found: string[] = []
  for (const name of await readdir(directory)) {
    if (name.startsWith('.')) await rm(join(directory, name), { recursive: true, force: true })
    else found.push(name)
  }
  return found
}

/** An empty folder to take a snapshot in. */
export async function beginSnapshot(directory: string, id: string): Promise<string> {
  const fresh = join(directory, `.new-${id}`)
  await rm(fresh, { recursive: true, force: true })
  await mkdir(fresh, { mode: 0o700 })
  return fresh
}

/** From now on it exists, durably. */
export async function publishSnapshot(directory: string, id: string): Promise<void> {
  const fresh = join(directory, `.new-${id}`)
  await syncDirectory(fresh)
  await rename(fresh, join(directory, id))
  await syncDirectory(directory)
}

/** Whatever there is of a snapshot whose taking failed, published or not, is gone, durably. */
export async function abandonSnapshot(directory: string, id: string): Promise<void> {
  await rm(join(directory, `.new-${id}`), { recursive: true, force: true })
  await unpublishSnapshot(directory, id)
  await removeRest(directory, id)
}

/** From now on it does not exist, durably; its files are removed by `removeRest`. */
export async function unpublishSnapshot(directory: string, id: string): Promise<void> {
  const gone = join(directory, `.gone-${id}`)
  await rm(gone, { recursive: true, force: true })
  try {
    await rename(join(directory, id), gone)
  } catch (error) {
    // It went in an attempt whose end was not heard.
    if (!hasCode(error, 'ENOENT')) throw error
  }
  await syncDirectory(directory)
}

export async function removeRest(directory: string, id: string): Promise<void> {
  await rm(join(directory, `.gone-${id}`), { recursive: true, force: true })
}
