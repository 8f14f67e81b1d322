import assert from 'node:assert/strict'
import { test } from 'node:test'
import { filesOfTar } from './archive.ts'

/** One member as GNU tar writes it. */
function member(name: string, bytes: Buffer, kind = '0'): Buffer {
  const header = Buffer.alloc(512)
  header.write(name.slice(0, 100), 0)
  header.write(bytes.length.toString(8).padStart(11, '0'), 124)
  header.write(kind, 156)
  header.write('ustar  ', 257)
  const body = Buffer.alloc(Math.ceil(bytes.length / 512) * 512)
  bytes.copy(body)
  return Buffer.concat([header, body])
}

async function* inPieces(bytes: Buffer, length: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length)
}

const long = `./usr/${'long/'.repeat(40)}file`
const ARCHIVE = Buffer.concat([
  member('./', Buffer.alloc(0), '5'),
  member('./boot/kernel', Buffer.alloc(1_500, 1)),
  member('./skipped', Buffer.alloc(700, 2)),
  member('././@LongLink', Buffer.from(`${long}\0`), 'L'),
  member(long, Buffer.from('at the end of a long name')),
  member('./link', Buffer.alloc(0), '2'),
  member('./empty', Buffer.alloc(0)),
  Buffer.alloc(1_024),
])

for (const length of [1, 100, 512, 100_000]) {
  test(`wanted files come out whole when the archive comes in pieces of ${length}`, async () => {
    const found = await filesOfTar(inPieces(ARCHIVE, length), (path) => path !== 'skipped')
    assert.deepEqual([...found.keys()], ['boot/kernel', long.slice(2), 'empty'])
    assert.ok(found.get('boot/kernel')?.equals(Buffer.alloc(1_500, 1)))
    assert.equal(found.get(long.slice(2))?.toString(), 'at the end of a long name')
  })
}

test('an archive that ends in the middle of a wanted file is refused', async () => {
  const cut = inPieces(ARCHIVE.subarray(0, 1_600), 100)
  await assert.rejects(
    filesOfTar(cut, () => true),
    /ends too early/,
  )
})
