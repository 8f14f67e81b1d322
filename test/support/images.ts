import { createHash } from 'node:crypto'
import { globSync, readFileSync } from 'node:fs'
import { mkdir, readdir, rm, stat, symlink } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { openLibrary } from '#agent/images/library.ts'
import { createLog } from '#base/log.ts'
import { hasCode } from '#base/system/files.ts'

/* The images that tests boot, made once and kept in the user's cache: one directory per content of src/agent/images, with the packages, which are
 * worth most, shared by all of them. An agent under test takes the directory as its `imageDir`. */

const SOURCES = join(import.meta.dirname, '../../src/agent/images')
const CACHE = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'holdfast-test')
/** Directories of other contents are removed after so long. */
const KEPT_MS = 3 * 24 * 3600 * 1000

function contentKey(): string {
  const hash = createHash('sha256')
  for (const path of globSync('{*.ts,guest/*}', { cwd: SOURCES }).toSorted()) {
    if (!path.endsWith('.test.ts')) hash.update(path).update(readFileSync(join(SOURCES, path)))
  }
  return hash.digest('hex').slice(0, 16)
}

/** The directory, with all built-in images ready; or why they cannot be made here, for `t.skip`. */
export async function testImages(): Promise<{ directory: string } | { skip: string }> {
  const directory = join(CACHE, `images-${contentKey()}`)
  await mkdir(join(CACHE, 'packages'), { recursive: true })
  await mkdir(directory, { recursive: true })
  try {
    await symlink('../packages', join(directory, 'packages'))
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error
  }
  for (const name of await readdir(CACHE)) {
    const path = join(CACHE, name)
    const isOld = name.startsWith('images-') && (await stat(path)).mtimeMs < Date.now() - KEPT_MS
    if (isOld && path !== directory) await rm(path, { recursive: true, force: true })
  }
  const library = openLibrary({ directory, log: createLog('test', 'silent') })
  try {
    for (const image of ['holdfast-tiny', 'holdfast-counter']) await library.provide(image)
    return { directory }
  } catch (error) {
    return { skip: `the tiny Linux cannot be made here: ${String(error)}` }
  } finally {
    await library.close()
  }
}
