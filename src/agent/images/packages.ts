import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import { runTool } from './tools.ts'

/* The Debian packages that the built-in images are made of. They are downloaded into a folder and read there; nothing is installed.
 *
 *     DIR/packages.json     which packages, with checksums; written last, so that with it the set is whole
 *     DIR/*.deb             as the archive has them
 *
 * A whole set is used for ever: who wants newer ones deletes the folder, who has no network brings a folder from elsewhere. apt checks the
 * signatures of the archive. The package lists of the system are tried first; where it has none, or old ones, apt fetches lists into a
 * directory of ours.
 */

export interface PackageFile {
  /** `busybox-static` */
  readonly name: string
  readonly path: string
}

export interface PackageSource {
  readonly directory: string
  readonly signal: AbortSignal
  readonly say: (text: string) => void
}

/** Depends on the newest kernel, whose own name holds its version. */
const KERNEL = 'linux-image-cloud-amd64'
const OTHERS = ['busybox-static', 'isolinux', 'syslinux-common']

interface Listed {
  readonly name: string
  readonly file: string
  readonly sha256: string
}

/** The packages, all there and all as the archive has them. Throws an Error that says what is missing. */
export async function providePackages(source: PackageSource): Promise<readonly PackageFile[]> {
  const { directory } = source
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const known = decodeSet(await readTextIfPresent(join(directory, 'packages.json')))
  if (known !== undefined && (await areWhole(directory, known))) return paths(directory, known)
  source.say(`downloading Debian packages into ${directory}; nothing is installed`)
  const scratch = await mkdtemp(join(directory, '.new-'))
  try {
    const set = await fetchAnyhow(source, scratch)
    for (const { file } of set) await rename(join(scratch, file), join(directory, file))
    await writeFileWhole(
      join(directory, 'packages.json'),
      `${JSON.stringify({ format: 1, packages: set }, null, 2)}\n`,
    )
    return paths(directory, set)
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

const paths = (directory: string, set: readonly Listed[]): readonly PackageFile[] =>
  set.map(({ name, file }) => ({ name, path: join(directory, file) }))

function decodeSet(text: string | undefined): readonly Listed[] | undefined {
  if (text === undefined) return undefined
  try {
    const { format, packages } = JSON.parse(text) as { format?: unknown; packages?: unknown }
    if (format !== 1 || !Array.isArray(packages)) return undefined
    const listed = packages as Listed[]
    return listed.every(({ file }) => typeof file === 'string' && FILE.test(file))
      ? listed
      : undefined
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

const FILE = /^[A-Za-z0-9][A-Za-z0-9.+~%_:-]*\.deb$/

async function areWhole(directory: string, set: readonly Listed[]): Promise<boolean> {
  for (const { file, sha256 } of set) {
    if ((await sha256Of(join(directory, file))) !== sha256) return false
  }
  return set.length > 0
}

/** Of a whole file; undefined when it cannot be read. */
async function sha256Of(path: string): Promise<string | undefined> {
  const hash = createHash('sha256')
  try {
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  } catch {
    return undefined // not there, or not readable: it is fetched again, and that says what is wrong
  }
  return hash.digest('hex')
}

/** With the system's package lists, else with our own. */
async function fetchAnyhow(source: PackageSource, scratch: string): Promise<readonly Listed[]> {
  try {
    return await fetchSet(source, scratch, [])
  } catch (error) {
    source.signal.throwIfAborted()
    source.say(`the package lists of the system do not do (${String(error)}), fetching others`)
  }
  const lists = join(scratch, 'apt')
  await mkdir(join(lists, 'lists', 'partial'), { recursive: true })
  await writeFile(join(lists, 'status'), '')
  const options = [
    `Dir::State=${lists}`,
    `Dir::State::status=${join(lists, 'status')}`,
    `Dir::Cache=${join(lists, 'cache')}`,
  ]
  await runTool('apt-get', [...aptOptions(options), 'update'], { signal: source.signal })
  return await fetchSet(source, scratch, options)
}

/** The images are for PCs whatever this machine is. Run by root, apt would change to a user who may not write here. */
function aptOptions(more: readonly string[]): string[] {
  const all = ['APT::Architecture=amd64', 'APT::Architectures=amd64', 'APT::Sandbox::User=root']
  return ['-qq', ...[...all, 'Acquire::ForceHash=SHA256', ...more].flatMap((one) => ['-o', one])]
}

async function fetchSet(
  { signal }: PackageSource,
  scratch: string,
  options: readonly string[],
): Promise<readonly Listed[]> {
  const apt = aptOptions(options)
  const run = { cwd: scratch, signal }
  const about = await runTool('apt-cache', [...apt, 'show', '--no-all-versions', KERNEL], run)
  const kernel = /^Depends:.*?(linux-image-[0-9][^\s,(]*)/m.exec(about)?.[1]
  if (kernel === undefined) throw new Error(`${KERNEL} names no kernel: is this a Debian archive?`)
  const names = [kernel, ...OTHERS]
  const uris = await runTool('apt-get', [...apt, '--print-uris', 'download', ...names], run)
  const set = names.map((name) => listedOf(uris, name))
  await runTool('apt-get', [...apt, 'download', ...names], run)
  for (const { file, sha256 } of set) {
    if ((await sha256Of(join(scratch, file))) !== sha256) throw new Error(`${file} is damaged`)
  }
  return set
}

/** One line per package: 'URI' FILE SIZE SHA256:HEX */
function listedOf(uris: string, name: string): Listed {
  for (const line of uris.split('\n')) {
    const [, file, sha256] = / (\S+) [0-9]+ SHA256:([0-9a-f]{64})/.exec(line) ?? []
    if (file !== undefined && sha256 !== undefined && file.startsWith(`${name}_`)) {
      if (!FILE.test(file)) throw new Error(`a package file is named ${file}`)
      return { name, file, sha256 }
    }
  }
  throw new Error(`apt does not say where ${name} is`)
}
