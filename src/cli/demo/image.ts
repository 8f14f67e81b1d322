import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { promisify } from 'node:util'
import { Fault, fault } from '#base/fault.ts'
import { hasCode } from '#base/system/files.ts'
import type { NbdClient } from '#client/nbd/client.ts'

/* Real data for the demo: an ext4 file system with files and a SQLite database in it, made without mounting anything,
 * copied onto a volume through NBD, and later read back and examined by the tools that own these formats. */

export const TOOL_MISSING = fault({
  code: 'TOOL_MISSING',
  retry: 'never',
  text: 'A program that the demo needs is not installed.',
  hint: 'On Debian and Ubuntu: apt-get install e2fsprogs. `npm run demo` does it.',
})

const FILES = 48
const FILE_BYTES_MAX = 256 * 1024
const ROWS = 20_000
const COPY_BYTES = 1024 * 1024
const COPIES_IN_FLIGHT = 4

/** What was put in, to compare with. */
export interface ImageFacts {
  /** SHA-256 by path inside the file system. */
  readonly files: ReadonlyMap<string, string>
  readonly rows: number
  readonly rowSum: number
}

/** Makes `image`, a sparse file of `sizeBytes`. */
export async function makeImage(
  directory: string,
  image: string,
  sizeBytes: number,
): Promise<ImageFacts> {
  const tree = join(directory, 'tree')
  const files = new Map<string, string>()
  for (let number = 0; number < FILES; number++) {
    const path = `/files/${number % 4}/file-${number}.bin`
    const content = randomBytes(1 + ((number * 7919 * 31) % FILE_BYTES_MAX))
    await mkdir(dirname(join(tree, path)), { recursive: true })
    await writeFile(join(tree, path), content)
    files.set(path, sha256(content))
  }
  const rowSum = makeDatabase(join(tree, 'orders.db'))
  await writeFile(image, '')
  await truncate(image, sizeBytes)
  await tool('mke2fs', '-q', '-F', '-t', 'ext4', '-L', 'holdfast-demo', '-d', tree, image)
  await rm(tree, { recursive: true })
  return { files, rows: ROWS, rowSum }
}

function makeDatabase(path: string): number {
  const database = new DatabaseSync(path)
  try {
    database.exec('CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)')
    database.exec('CREATE INDEX by_customer ON orders (customer)')
    const insert = database.prepare('INSERT INTO orders (customer, cents) VALUES (?, ?)')
    database.exec('BEGIN')
    for (let row = 0; row < ROWS; row++) {
      insert.run(`customer ${(row * 7919) % 4999}`, (row * 104_729) % 100_000)
    }
    database.exec('COMMIT')
    return sumOf(database)
  } finally {
    database.close()
  }
}

const sumOf = (database: DatabaseSync): number =>
  Number(database.prepare('SELECT sum(cents) AS sum FROM orders').get()?.['sum'])

/** Copies a file onto a volume, leaving out what is zero anyway; durable when it settles. Returns the bytes sent. */
export async function copyIn(image: string, client: NbdClient): Promise<number> {
  const file = await open(image)
  const zeroes = Buffer.alloc(COPY_BYTES)
  let sent = 0
  try {
    const { size } = await file.stat()
    await inParallel(size, async (offset, length) => {
      const { buffer } = await file.read(Buffer.alloc(length), 0, length, offset)
      if (buffer.equals(zeroes.subarray(0, length))) return
      await client.write(offset, buffer)
      sent += length
    })
    await client.flush()
    return sent
  } finally {
    await file.close()
  }
}

/** Copies a volume into a sparse file. */
export async function copyOut(client: NbdClient, image: string): Promise<void> {
  const file = await open(image, 'w')
  const zeroes = Buffer.alloc(COPY_BYTES)
  try {
    await file.truncate(client.sizeBytes)
    await inParallel(client.sizeBytes, async (offset, length) => {
      const data = await client.read(offset, length)
      if (!data.equals(zeroes.subarray(0, length))) await file.write(data, 0, length, offset)
    })
  } finally {
    await file.close()
  }
}

async function inParallel(
  sizeBytes: number,
  copy: (offset: number, length: number) => Promise<void>,
): Promise<void> {
  let next = 0
  const worker = async () => {
    while (next < sizeBytes) {
      const offset = next
      next += COPY_BYTES
      await copy(offset, Math.min(COPY_BYTES, sizeBytes - offset))
    }
  }
  await Promise.all(Array.from({ length: COPIES_IN_FLIGHT }, worker))
}

export interface ImageCheck {
  /** `e2fsck -fn` found nothing to repair. */
  readonly fileSystemClean: boolean
  readonly fileSystemReport: string
  /** The answer of PRAGMA integrity_check: `ok`. */
  readonly databaseIntegrity: string
  readonly rows: number
  readonly rowSum: number
  readonly filesEqual: number
  readonly filesExpected: number
}

/** Examines an image. Changes nothing in it. */
export async function checkImage(
  directory: string,
  image: string,
  facts: ImageFacts,
): Promise<ImageCheck> {
  const fsck = await tool('e2fsck', '-f', '-n', image).then(
    (report) => ({ clean: true, report }),
    (error: unknown) => {
      if (error instanceof Fault) throw error
      return { clean: false, report: String(error) }
    },
  )
  const out = join(directory, 'checked')
  await mkdir(out, { recursive: true })
  await tool('debugfs', '-R', `rdump / ${out}`, image)
  let filesEqual = 0
  for (const [path, expected] of facts.files) {
    const content = await readFile(join(out, path)).catch(() => undefined)
    if (content !== undefined && sha256(content) === expected) filesEqual++
  }
  const database = readDatabase(join(out, 'orders.db'))
  return {
    fileSystemClean: fsck.clean,
    fileSystemReport: fsck.report,
    ...database,
    filesEqual,
    filesExpected: facts.files.size,
  }
}

function readDatabase(path: string): { databaseIntegrity: string; rows: number; rowSum: number } {
  try {
    const database = new DatabaseSync(path, { readOnly: true })
    try {
      const integrity = database.prepare('PRAGMA integrity_check').all()
      const count = database.prepare('SELECT count(*) AS count FROM orders').get()
      return {
        databaseIntegrity: integrity.map((row) => String(row['integrity_check'])).join('; '),
        rows: Number(count?.['count']),
        rowSum: sumOf(database),
      }
    } finally {
      database.close()
    }
  } catch (error) {
    return { databaseIntegrity: String(error), rows: 0, rowSum: 0 }
  }
}

const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex')

const run = promisify(execFile)

/** Runs one of e2fsprogs and returns what it printed; they live in sbin, which users often have no path to. */
async function tool(name: string, ...args: string[]): Promise<string> {
  try {
    const env = {
      ...process.env,
      PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`,
      LC_ALL: 'C',
    }
    const { stdout } = await run(name, args, { env, maxBuffer: 16 * 1024 * 1024 })
    return stdout
  } catch (error) {
    if (hasCode(error, 'ENOENT')) throw new Fault(TOOL_MISSING, `starting ${name}`, {}, error)
    throw error
  }
}
