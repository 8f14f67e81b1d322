import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test, type TestContext } from 'node:test'
import { Lab, until } from './replication-lab/lab.ts'

const MIB = 1024 * 1024

async function lab(t: TestContext): Promise<Lab> {
  const made = await Lab.make()
  t.after(() => made.end())
  return made
}

describe('replication of a session between two site processes', () => {
  test('an acknowledged write is on both sides, and a flush makes it durable on both', async (t) => {
    const made = await lab(t)
    await made.start([{ index: 1, sizeBytes: 16 * MIB, blank: true }])
    await made.protect()
    const client = await made.a.connect('pair-1')
    const data = randomBytes(8192)
    await client.write(12288, data)
    assert.deepEqual(made.b.data('b-1').subarray(12288, 12288 + 8192), data)
    const before = [await made.a.syncs(), await made.b.syncs()]
    await client.flush()
    await client.write(65536, data, { fua: true })
    const after = [await made.a.syncs(), await made.b.syncs()]
    assert.ok((after[0]?.['a-1'] ?? 0) >= (before[0]?.['a-1'] ?? 0) + 2)
    assert.ok((after[1]?.['b-1'] ?? 0) >= (before[1]?.['b-1'] ?? 0) + 2)
    client.destroy()
    await until(() => made.same(), 'both sides equal')
  })
})
