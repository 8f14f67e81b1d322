import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Acceptor, startAcceptor } from './acceptor.ts'
import { fromDescriptor } from './byte-stream.ts'

/** Answers every byte. */
const echo = (fd: number) => {
  const stream = fromDescriptor(fd)
  stream.receive((bytes) => stream.duplex.write(Buffer.from(bytes)))
  stream.duplex.on('end', () => stream.duplex.end())
  stream.resume()
}

async function talk(where: { path: string } | { host: string; port: number }): Promise<string> {
  const socket = 'path' in where ? connect(where.path) : connect(where.port, where.host)
  socket.end('hello')
  const chunks: Buffer[] = []
  for await (const chunk of socket) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

test('connections to a unix socket arrive as descriptors, and its mode is there from the start', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-accept-'))
  const path = join(directory, 'door')
  const acceptor = await startAcceptor({ path, mode: 0o600 }, echo)
  assert.equal((await stat(path)).mode & 0o777, 0o600)
  assert.deepEqual(await Promise.all([talk({ path }), talk({ path })]), ['hello', 'hello'])
  await acceptor.close()
  await assert.rejects(talk({ path }))
  await rm(directory, { recursive: true })
})

for (const host of ['127.0.0.1', '::1', 'localhost']) {
  test(`TCP on ${host}: the port is told, and free again after closing`, async (t) => {
    let acceptor: Acceptor
    try {
      acceptor = await startAcceptor({ host, port: 0 }, echo)
    } catch (error) {
      if (host !== '::1') throw error
      return t.skip(`no IPv6 here: ${String(error)}`)
    }
    const port = acceptor.port ?? 0
    assert.equal(await talk({ host, port }), 'hello')
    await assert.rejects(startAcceptor({ host, port }, echo), { code: 'EADDRINUSE' })
    await acceptor.close()
    await (await startAcceptor({ host, port }, echo)).close()
  })
}

test('a path that cannot be bound is refused with the reason of the system', async () => {
  await assert.rejects(startAcceptor({ path: '/nowhere/at/all', mode: 0o600 }, echo), {
    code: 'ENOENT',
  })
})

test('the thread does not keep a process alive or hold up its death', async () => {
  const module = JSON.stringify(join(import.meta.dirname, 'acceptor.ts'))
  const program = `
    const { startAcceptor } = await import(${module})
    await startAcceptor({ host: '127.0.0.1', port: 0 }, () => {})
    await new Promise((resolve) => setTimeout(resolve, 1000))
    process.on('exit', () => console.log(Date.now()))
    throw new Error('broken')`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  let printed = ''
  child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  await once(child, 'close')
  assert.match(printed, /^\d+\n$/)
  assert.ok(Date.now() - Number(printed) < 5000, 'it ended soon after its last breath')
})
