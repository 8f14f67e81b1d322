/** The NBD server under programs that other people wrote, over real sockets and files. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, open, rm, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import VatesNbdClient from '@vates/nbd-client'
import { ExportTable } from '#agent/nbd/exports.ts'
import { localDevice } from '#agent/nbd/local-device.ts'
import { NbdServer } from '#agent/nbd/server.ts'
import { openFileVolumeStore } from '#agent/volumes/file/file-volume-store.ts'
import type { VolumeStore } from '#agent/volumes/volume-store.ts'
import type { Volume } from '#agent/volumes/volume.ts'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { connectNbd } from '#client/nbd/client.ts'
import { NBD_DISCONNECTED, NBD_REFUSED } from '#client/nbd/faults.ts'
import { until } from '../support/until.ts'

const run = promisify(execFile)
const MIB = 1024 * 1024
const SIZE = 256 * MIB
const log = createLog('test', 'silent')

let directory: string
let store: VolumeStore
let exports: ExportTable
let server: NbdServer
let socket: string

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-nbd-'))
  store = await openFileVolumeStore({
    directory: join(directory, 'volumes'),
    log,
    wallMs: () => systemClock.wallMs(),
  })
  exports = new ExportTable()
  server = new NbdServer({ exports, log, clock: systemClock })
  socket = join(directory, 'nbd.sock')
  await server.listenUnix(socket)
})

after(async () => {
  await server.close()
  await store.close()
  await rm(directory, { recursive: true })
})

/** A fresh volume, exported under its own name. */
async function exported(name: string, sizeBytes = SIZE): Promise<Volume> {
  await store.create(name, sizeBytes, { mode: 'standalone' })
  const volume = await store.open(name)
  exports.serve(name, localDevice(volume))
  return volume
}

const uri = (name: string) => `nbd+unix:///${name}?socket=${socket}`
const dataFile = (name: string) => join(directory, 'volumes', name, 'data')

interface NbdInfo {
  readonly exports: readonly [Readonly<Record<string, unknown>>]
}
type NbdMap = readonly { readonly offset: number; readonly length: number; readonly type: number }[]

const map = async (name: string): Promise<NbdMap> =>
  JSON.parse((await run('nbdinfo', ['--map', '--json', uri(name)])).stdout) as NbdMap

/** All commands must succeed; qemu-io itself exits with 0 even when a pattern differs. */
async function qemuIo(name: string, ...commands: string[]): Promise<void> {
  const args = ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri(name)]
  const { stdout, stderr } = await run('qemu-io', args)
  assert.doesNotMatch(stdout + stderr, /fail|error/i)
}

test('nbdinfo sees size, flags, block sizes and the allocation context', async () => {
  await exported('info')
  const { stdout } = await run('nbdinfo', ['--json', uri('info')])
  const [info] = (JSON.parse(stdout) as NbdInfo).exports
  assert.equal(info['export-size'], SIZE)
  assert.deepEqual(info['contexts'], ['base:allocation'])
  const flags = ['can_flush', 'can_fua', 'can_trim', 'can_zero', 'can_multi_conn']
  for (const flag of flags) assert.equal(info[flag], true, flag)
  for (const flag of ['is_read_only', 'can_df', 'can_fast_zero']) {
    assert.equal(info[flag], false, flag)
  }
  assert.equal(info['block_size_minimum'], 1)
  assert.equal(info['block_size_maximum'], 32 * MIB)
})

test('nbdinfo lists the exports that can be opened', async () => {
  await exported('listed')
  const { stdout } = await run('nbdinfo', ['--list', '--json', `nbd+unix:///?socket=${socket}`])
  const names = (JSON.parse(stdout) as NbdInfo).exports.map((one) => one['export-name'])
  assert.ok(names.includes('listed'))
})

test('nbdcopy brings 64 MiB in and out again, with several connections', async () => {
  const volume = await exported('copied')
  const source = join(directory, 'source.raw')
  const file = await open(source, 'w')
  await file.truncate(SIZE)
  for (const at of [0, 5 * MIB + 512, 100 * MIB])
    await file.write(randomBytes(20 * MIB), 0, 20 * MIB, at)
  await file.write(randomBytes(4 * MIB), 0, 4 * MIB, SIZE - 4 * MIB)
  await file.close()
  await run('nbdcopy', ['--flush', source, uri('copied')])
  await run('cmp', [source, dataFile('copied')])
  assert.ok((await volume.allocatedBytes()) < 100 * MIB, 'holes stayed holes')
  const back = join(directory, 'back.raw')
  await run('nbdcopy', [uri('copied'), back])
  await run('cmp', [source, back])
})

test('qemu-io finds its patterns, unaligned, zeroed and trimmed', async () => {
  await exported('patterns')
  await qemuIo(
    'patterns',
    'write -P 0x11 0 4M',
    'write -P 0x22 513 777',
    'write -f -P 0x33 1048000 1200',
    'read -P 0x11 0 513',
    'read -P 0x22 513 777',
    'read -P 0x11 1290 1000',
    'read -P 0x33 1048000 1200',
    'write -z 8192 65536',
    'read -P 0 8192 65536',
    'write -z -u 131072 65537',
    'read -P 0 131072 65537',
    'read -P 0x11 196609 1000',
    'discard 2M 1M',
    'read -P 0 2M 1M',
    'read -P 0x11 3M 1M',
    'aio_write -P 0x44 10M 1M',
    'aio_write -P 0x55 11M 3000',
    'aio_flush',
    'read -P 0x44 10M 1M',
    'read -P 0x55 11M 3000',
    'write -P 0x66 20M 40M',
    'read -P 0x66 20M 40M',
    'flush',
  )
})

test('qemu-io is told when it asks beyond the end', async () => {
  await exported('end', 4 * MIB)
  await assert.rejects(run('qemu-io', ['-f', 'raw', '-c', 'write 4M 512', uri('end')]))
  await qemuIo('end', 'write -P 7 4194303 1', 'read -P 7 4194303 1')
})

test('BLOCK_STATUS shows what is data and what is not', async () => {
  await exported('mapped')
  assert.deepEqual(
    (await map('mapped')).map(({ offset, length, type }) => [offset, length, type]),
    [[0, SIZE, 3]],
  )
  await qemuIo('mapped', 'write -P 1 0 4M', 'write -P 1 100M 1M', 'discard 1M 1M', 'flush')
  assert.deepEqual(
    (await map('mapped')).map(({ offset, length, type }) => [offset, length, type]),
    [
      [0, MIB, 0],
      [MIB, MIB, 3],
      [2 * MIB, 2 * MIB, 0],
      [4 * MIB, 96 * MIB, 3],
      [100 * MIB, MIB, 0],
      [101 * MIB, SIZE - 101 * MIB, 3],
    ],
  )
  const { stdout } = await run('qemu-img', ['map', '-f', 'raw', '--output=json', uri('mapped')])
  const data = (JSON.parse(stdout) as { start: number; data: boolean }[]).filter((one) => one.data)
  assert.deepEqual(
    data.map((one) => one.start),
    [0, 2 * MIB, 100 * MIB],
  )
})

test('qemu-img converts into a volume and out of it', async () => {
  await exported('converted', 64 * MIB)
  const source = join(directory, 'convert.raw')
  await writeFile(source, randomBytes(64 * MIB))
  await run('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', source, uri('converted')])
  const { stdout } = await run('qemu-img', [
    'compare',
    '-f',
    'raw',
    '-F',
    'raw',
    source,
    uri('converted'),
  ])
  assert.match(stdout, /identical/)
})

test('fio verifies every block of a mixed load by checksum', async () => {
  await exported('verified')
  for (const load of [
    ['--bsrange=4k-1m', '--iodepth=16', '--size=96m'],
    ['--bs=4k', '--iodepth=64', '--size=32m'],
    ['--bs=4k', '--iodepth=4', '--size=2m', '--fsync=3'],
  ]) {
    await run('fio', [
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${uri('verified')}`,
      '--rw=randwrite',
      '--verify=crc32c',
      '--verify_state_save=0',
      '--verify_fatal=1',
      ...load,
    ])
  }
})

test('a second client sees what the first one had acknowledged, and flushes for both', async () => {
  await exported('shared')
  const [one, two] = await Promise.all([
    connectNbd({ unix: socket }, { exportName: 'shared' }),
    connectNbd({ unix: socket }, { exportName: 'shared' }),
  ])
  const block = randomBytes(100_000)
  await one.write(777, block)
  await two.flush()
  assert.ok((await two.read(777, block.length)).equals(block))
  await Promise.all([one.disconnect(), two.disconnect()])
})

test('the client of Xen Orchestra reads a volume', async () => {
  const volume = await exported('vates', 8 * MIB)
  const data = randomBytes(8 * MIB)
  volume.writeSync(data, 0, data.length, 0)
  const { port } = await server.listenTcp('127.0.0.1', 0, undefined)
  const client = new VatesNbdClient({ address: '127.0.0.1', port: port ?? 0, exportname: 'vates' })
  await client.connect()
  const block = await client.readBlock(5, 64 * 1024)
  assert.ok(block.equals(data.subarray(5 * 65_536, 6 * 65_536)))
  await client.disconnect()
})

test('a client that dies in the middle leaves no memory behind', async () => {
  await exported('died')
  const fio = spawn(
    'fio',
    [
      '--name=die',
      '--ioengine=nbd',
      `--uri=${uri('died')}`,
      '--rw=randrw',
      '--bs=256k',
      '--iodepth=32',
      '--time_based',
      '--runtime=60',
      '--size=64m',
      '--thread', // one process, so that the kill hits the client itself
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let said = ''
  for (const stream of [fio.stdout, fio.stderr]) stream.on('data', (text) => (said += String(text)))
  const exit = once(fio, 'exit')
  await until('fio writes', () => {
    assert.equal(fio.exitCode, null, `fio ended by itself: ${said}`)
    return exports.connectionCount('died') > 0 && server.slabsInUse > 0
  })
  fio.kill('SIGKILL')
  await exit
  await until('its connection is gone', () => server.connectionCount === 0)
  await until('its memory is free', () => server.slabsInUse === 0)
})

test('an export that lost its authority drops its clients and says why to the next', async () => {
  await exported('lost')
  const client = await connectNbd({ unix: socket }, { exportName: 'lost' })
  exports.refuse('lost', 'written at az2 since epoch 7')
  await client.closed
  await assert.rejects(client.write(0, Buffer.alloc(512)), (error) =>
    isFault(error, NBD_DISCONNECTED),
  )
  await assert.rejects(
    connectNbd({ unix: socket }, { exportName: 'lost' }),
    (error) => isFault(error, NBD_REFUSED) && error.message.includes('written at az2'),
  )
  await assert.rejects(run('qemu-io', ['-f', 'raw', '-c', 'read 0 512', uri('lost')]), /az2/)
})

test('noise on real sockets is survived without growing', async () => {
  await exported('noisy', 4 * MIB)
  const healthy = await connectNbd({ unix: socket }, { exportName: 'noisy' })
  const assault = async (count: number) => {
    for (let i = 0; i < count; i++) {
      const hostile = connect(socket)
      hostile.on('error', () => {}) // being cut off is what it came for
      hostile.resume()
      await once(hostile, 'connect')
      const valid = Buffer.from('00000003' + '49484156454f5054' + '00000007', 'hex')
      hostile.write(i % 2 === 0 ? valid : Buffer.alloc(0))
      hostile.write(randomBytes(1 + ((i * 7919) % 40_000)))
      if (i % 3 === 0) hostile.destroy()
      else
        await Promise.race([
          once(hostile, 'close'),
          new Promise((resolve) => setTimeout(resolve, 20)),
        ])
      hostile.destroy()
      await healthy.write(i, Buffer.from([i & 255]))
    }
  }
  await assault(100)
  const { rss } = process.memoryUsage()
  await assault(300)
  assert.ok(process.memoryUsage().rss - rss < 64 * MIB, 'memory grew')
  assert.equal((await healthy.read(50, 1))[0], 50)
  await healthy.disconnect()
})

test('a client that never opens an export is cut off', async () => {
  const impatient = new NbdServer({ exports, log, clock: systemClock, handshakeMsMax: 50 })
  const path = join(directory, 'impatient.sock')
  await impatient.listenUnix(path)
  const idle = connect(path)
  idle.resume()
  await once(idle, 'close')
  await impatient.close()
})

test('beyond the limit of connections new ones are closed and old ones work', async () => {
  await exported('few')
  const small = new NbdServer({ exports, log, clock: systemClock, connectionsMax: 2 })
  const path = join(directory, 'small.sock')
  await small.listenUnix(path)
  const first = await connectNbd({ unix: path }, { exportName: 'few' })
  const second = await connectNbd({ unix: path }, { exportName: 'few' })
  await assert.rejects(connectNbd({ unix: path }, { exportName: 'few' }))
  await first.disconnect()
  await second.flush()
  await until('the first connection is gone', () => small.connectionCount <= 1)
  const third = await connectNbd({ unix: path }, { exportName: 'few' })
  await third.flush()
  await small.close()
})

// ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Pki {
  readonly dir: string
  readonly ca: string
  readonly server: { readonly cert: string; readonly key: string }
  readonly client: { readonly cert: string; readonly key: string }
}

/** An authority, a server certificate for 127.0.0.1 and a client certificate, all made by openssl. */
async function makePki(name: string): Promise<Pki> {
  const dir = join(directory, name)
  await mkdir(dir)
  const at = (file: string) => join(dir, file)
  const openssl = (command: string) => run('openssl', command.split(' '), { cwd: dir })
  const key = '-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
  await openssl(
    `req -x509 ${key} -keyout ca-key.pem -out ca-cert.pem -days 2 -subj /CN=test-authority`,
  )
  for (const [role, subject, extensions] of [
    ['server', '/CN=agent:az1:a', 'subjectAltName=IP:127.0.0.1,DNS:localhost'],
    ['client', '/CN=nbd-client:p:u', 'keyUsage=digitalSignature'],
  ] as const) {
    await openssl(`req ${key} -keyout ${role}-key.pem -out ${role}.csr -subj ${subject}`)
    await writeFile(at(`${role}.ext`), extensions)
    await openssl(
      `x509 -req -in ${role}.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out ${role}-cert.pem -extfile ${role}.ext`,
    )
  }
  const read = (file: string) => readFileSync(at(file), 'utf8')
  const pair = (role: string) => ({ cert: read(`${role}-cert.pem`), key: read(`${role}-key.pem`) })
  return { dir, ca: read('ca-cert.pem'), server: pair('server'), client: pair('client') }
}

test('over TLS with client certificates: ours, libnbd and QEMU in, strangers out', async () => {
  await exported('tls', 64 * MIB)
  const [pki, foreign] = await Promise.all([makePki('pki'), makePki('foreign')])
  const { port = 0 } = await server.listenTcp('127.0.0.1', 0, { ca: pki.ca, ...pki.server })
  const to = (tls?: { ca: string; cert?: string; key?: string }) =>
    connectNbd(
      { host: '127.0.0.1', port, ...(tls === undefined ? {} : { tls }) },
      { exportName: 'tls' },
    )

  const client = await to({ ca: pki.ca, ...pki.client })
  const data = randomBytes(5 * MIB)
  await client.write(1000, data, { fua: true })
  assert.ok((await client.read(1000, data.length)).equals(data))
  await client.disconnect()

  const tlsUri = `nbds://127.0.0.1:${port}/tls?tls-certificates=${pki.dir}`
  assert.equal((await run('nbdinfo', ['--size', tlsUri])).stdout.trim(), String(64 * MIB))
  const back = join(directory, 'tls.raw')
  await run('nbdcopy', [tlsUri, back])
  await run('cmp', [back, dataFile('tls')])
  await run('qemu-img', [
    'convert',
    '-n',
    '-O',
    'raw',
    '--object',
    `tls-creds-x509,id=tls0,endpoint=client,dir=${pki.dir}`,
    '--image-opts',
    `driver=nbd,host=127.0.0.1,port=${port},export=tls,tls-creds=tls0`,
    back,
  ])

  await assert.rejects(to(), (error) => isFault(error, NBD_REFUSED)) // no TLS at all
  await assert.rejects(to({ ca: pki.ca })) // no certificate
  await assert.rejects(to({ ca: pki.ca, ...foreign.client })) // of another authority
  await assert.rejects(to({ ca: foreign.ca, ...pki.client })) // the client distrusts the server
  await assert.rejects(run('nbdinfo', [`nbd://127.0.0.1:${port}/tls`]))
})

test('the holder of a certificate gets only what it may have', async () => {
  await exported('mine', 4 * MIB)
  await exported('theirs', 4 * MIB)
  const pki = await makePki('pki-policy')
  const guarded = new NbdServer({
    exports,
    log,
    clock: systemClock,
    mayOpen: (client, name) =>
      client === 'nbd-client:p:u' && name === 'mine' ? undefined : `${client} may not have ${name}`,
  })
  const { port = 0 } = await guarded.listenTcp('127.0.0.1', 0, { ca: pki.ca, ...pki.server })
  const address = { host: '127.0.0.1', port, tls: { ca: pki.ca, ...pki.client } }
  const client = await connectNbd(address, { exportName: 'mine' })
  await client.flush()
  await client.disconnect()
  await assert.rejects(connectNbd(address, { exportName: 'theirs' }), /may not have theirs/)
  const { stdout } = await run('nbdinfo', [
    '--list',
    '--json',
    `nbds://127.0.0.1:${port}/?tls-certificates=${pki.dir}`,
  ])
  assert.deepEqual(
    (JSON.parse(stdout) as NbdInfo).exports.map((one) => one['export-name']),
    ['mine'],
  )
  await guarded.close()
})

test('the unix socket is for its owner alone', async () => {
  const { mode } = await stat(socket)
  assert.equal(mode & 0o777, 0o600)
})
