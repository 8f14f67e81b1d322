import assert from 'node:assert/strict'
import { duplexPair, type Duplex } from 'node:stream'
import { test } from 'node:test'
import type { Clock } from '#base/clock.ts'
import { systemClock } from '#base/system/clock.ts'
import type { Probe } from '#wire/site/probes.ts'
import type { ComputeDriver, NetworkAnswer, NetworkQuestion } from '../driver.ts'
import { definitionOf } from '../switch/nic.test-kit.ts'
import { LINE_BYTES_MAX, runInGuest, TALK_BYTES_MAX } from './guest-agent.ts'
import { BODY_BYTES_MAX, parseHttp } from './http-answer.ts'
import { type Probed, Probes } from './probes.ts'

/** A clock whose waits are over at once. */
function hastyClock(): Clock & { now: number } {
  const clock = {
    now: 0,
    wallMs: () => 1_000_000 + clock.now,
    bootMs: () => clock.now,
    after(ms: number, fire: () => void) {
      const handle = setImmediate(() => {
        clock.now += ms
        fire()
      })
      return () => clearImmediate(handle)
    },
  }
  return clock
}

const NIC = definitionOf(1, 0, 10)
const guest = (over: Partial<Probed> = {}): Probed => ({
  definition: {
    server: 's',
    generation: 1,
    name: 's',
    vcpus: 1,
    memory_mb: 128,
    disks: [],
    nics: [NIC],
  },
  power: 'running',
  sinceMs: 1_000_000,
  ...over,
})

interface Played {
  readonly console?: () => string
  readonly addressed?: () => boolean
  readonly ask?: (question: NetworkQuestion) => NetworkAnswer | string
  readonly agent?: () => Duplex | undefined
  readonly network?: null
}

function probesOf(played: Played) {
  const clock = hastyClock()
  const driver = {
    name: 'played',
    console: async () => played.console?.() ?? '',
    guestAgent: async () => played.agent?.(),
    network:
      played.network === null
        ? null
        : {
            addressed: async () => played.addressed?.() ?? false,
            ask: async (_server: string, _port: string, question: NetworkQuestion) => {
              const answer = played.ask?.(question) ?? 'silent'
              if (typeof answer !== 'string') return answer
              return { kind: answer, answer: Buffer.alloc(0) }
            },
          },
  } as unknown as ComputeDriver
  const probes = new Probes(driver, clock)
  return {
    clock,
    probes,
    probe: (probe: Probe, waitMs = 0, found = guest()) => probes.probe(() => found, probe, waitMs),
  }
}

const http = (text: string): NetworkAnswer => ({ kind: 'answered', answer: Buffer.from(text) })

test('a probe waits until the guest is ready, and its time counts from the start of the guest', async () => {
  let looks = 0
  const { probe, clock } = probesOf({
    console: () => (++looks < 4 ? 'booting\n' : 'booting\nREADY db 1\n'),
  })
  clock.now = 5_000
  const answer = await probe({ kind: 'boot', marker: 'READY db' }, 20_000)
  assert.deepEqual(answer, {
    ok: true,
    detail: 'the console shows it',
    since_start_ms: 5_750,
    output: 'READY db 1',
  })
  clock.now += 9_000
  const again = await probe({ kind: 'boot', marker: 'READY db' })
  assert.equal(again.since_start_ms, 5_750, 'what succeeded once keeps its time')
  const restarted = await probe(
    { kind: 'boot', marker: 'READY db' },
    0,
    guest({ sinceMs: clock.wallMs() - 10 }),
  )
  assert.equal(restarted.since_start_ms, 10)
})

test('a probe that does not succeed says why when its time is over', async () => {
  const { probe, clock } = probesOf({ ask: () => ({ kind: 'refused', answer: Buffer.alloc(0) }) })
  const answer = await probe({ kind: 'tcp', port: 22 }, 3_000)
  assert.deepEqual(answer, {
    ok: false,
    detail: 'connection refused',
    since_start_ms: null,
    output: '',
  })
  assert.ok(clock.now >= 3_000 && clock.now < 4_000)
  const off = await probe({ kind: 'tcp', port: 22 }, 0, guest({ power: 'off' }))
  assert.equal(off.detail, 'the guest is off')
  const bare = guest()
  const alone = { ...bare, definition: { ...bare.definition, nics: [] } }
  assert.equal((await probe({ kind: 'boot' }, 0, alone)).detail, 'the guest has no NIC')
})

test('without a marker a guest has booted when it uses its address', async () => {
  let asked = 0
  const { probe } = probesOf({ addressed: () => ++asked > 1 })
  const answer = await probe({ kind: 'boot' }, 1_000)
  assert.deepEqual([answer.ok, answer.detail], [true, `it uses its address ${NIC.address}`])
  const elsewhere = probesOf({ network: null })
  assert.match((await elsewhere.probe({ kind: 'boot' })).detail, /^NO_NETWORK_ACCESS/)
})

test('an HTTP probe looks at the status and at the text', async () => {
  const asked: string[] = []
  const { probe } = probesOf({
    ask: ({ send }) => {
      asked.push(send.toString())
      const [, path] = send.toString().split(' ')
      if (path === '/none') return http('HTTP/1.1 404 Not Found\r\n\r\nnothing here')
      if (path === '/else') return http('220 mail.example ESMTP\r\n\r\n')
      if (path === '/slow') return { kind: 'late', answer: Buffer.from('HTTP/1.1 200 OK\r\n') }
      return http('HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello world')
    },
  })
  const get = async (path: string, more: object = {}) => {
    const { ok, detail, output } = await probe({ kind: 'http', port: 8080, path, ...more })
    return [ok, detail, output]
  }
  assert.deepEqual(await get('/'), [true, 'status 200', 'hello world'])
  assert.match(asked[0] ?? '', /^GET \/ HTTP\/1\.0\r\nHost: 10\.1\.0\.10:8080\r\n/)
  assert.deepEqual(await get('/', { contains: 'world' }), [true, 'status 200', 'hello world'])
  const without = [false, 'status 200, without the text that is looked for', 'hello world']
  assert.deepEqual(await get('/', { contains: 'moon' }), without)
  assert.deepEqual(await get('/none'), [false, 'status 404', 'nothing here'])
  assert.deepEqual(await get('/none', { status: 404 }), [true, 'status 404', 'nothing here'])
  assert.deepEqual(await get('/else'), [false, 'what answered is not HTTP', ''])
  assert.deepEqual(await get('/slow'), [false, 'what answered is not HTTP', ''])
})

test('of a body, the first 64 KiB are looked at, and the last 4 KiB told', async () => {
  const body = `${'x'.repeat(BODY_BYTES_MAX)}needle`
  assert.equal(parseHttp(Buffer.from(`HTTP/1.0 200\r\n\r\n${body}`))?.body.length, BODY_BYTES_MAX)
  const { probe } = probesOf({ ask: () => http(`HTTP/1.0 200 OK\r\n\r\n${body}`) })
  const answer = await probe({ kind: 'http', port: 80, path: '/', contains: 'needle' })
  assert.deepEqual([answer.ok, answer.output.length], [false, 4_096])
})

/** A guest agent that runs commands: `exit N` and `hang`. */
function playedAgent(before = ''): Duplex {
  const [ours, theirs] = duplexPair()
  let text = ''
  let looks = 0
  let wanted: string[] = []
  const say = (value: unknown) => theirs.write(`${JSON.stringify(value)}\n`)
  if (before !== '') theirs.write(before)
  theirs.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      const line = text.slice(0, end).replace('\u00ff', '')
      text = text.slice(end + 1)
      const { execute, arguments: args } = JSON.parse(line)
      if (execute === 'guest-sync-delimited') {
        theirs.write(Buffer.from([0xff]))
        say({ return: args.id })
      } else if (execute === 'guest-exec') {
        wanted = [args.path, ...args.arg]
        if (args.path === '/none') say({ error: { class: 'GenericError', desc: 'no such file' } })
        else say({ return: { pid: 7 } })
      } else if (wanted[0] === 'hang' || ++looks < 2) say({ return: { exited: false } })
      else {
        const data = Buffer.from(`ran ${wanted.join(' ')}`).toString('base64')
        say({ return: { exited: true, exitcode: Number(wanted[1]), 'out-data': data } })
      }
    }
  })
  return ours
}

test('a command is run by the guest agent, and its exit code decides', async () => {
  let agent: () => Duplex | undefined = () => playedAgent()
  const { probe } = probesOf({ agent: () => agent() })
  const run = async (...command: string[]) => {
    const { ok, detail, output } = await probe({ kind: 'command', command })
    return [ok, detail, output]
  }
  assert.deepEqual(await run('exit', '0'), [true, 'exit code 0', 'ran exit 0'])
  assert.deepEqual(await run('exit', '3'), [false, 'exit code 3', 'ran exit 3'])
  assert.deepEqual(await run('/none'), [false, 'no such file', ''])
  // What an earlier client was answered, and half of it.
  agent = () => playedAgent('{"return": {"pid": 3}}\n{"retu')
  assert.deepEqual(await run('exit', '0'), [true, 'exit code 0', 'ran exit 0'])
  agent = () => undefined
  assert.match((await run('exit', '0'))[1] as string, /^NO_GUEST_AGENT/)
})

test('a guest without an agent, and a command without an end, are found out in time', async () => {
  const silent = duplexPair()[0]
  const clock = hastyClock()
  assert.deepEqual(await runInGuest(silent, ['true'], 10_000, clock), { kind: 'no_agent' })
  assert.ok(clock.now <= 2_000)
  assert.equal(silent.destroyed, true)
  const hanging = await runInGuest(playedAgent(), ['hang'], 300, systemClock)
  assert.deepEqual(hanging, { kind: 'failed', reason: 'it did not end in time' })
})

/** Says `piece` again and again, as fast as it is taken, and counts the bytes that were. */
function flood(piece: Buffer): { readonly connection: Duplex; readonly said: () => number } {
  const [ours, theirs] = duplexPair()
  let said = 0
  const push = () => {
    while (!ours.destroyed) {
      said += piece.length
      if (!theirs.write(piece)) break
    }
  }
  theirs.on('drain', push)
  theirs.on('error', () => undefined)
  push()
  return { connection: ours, said: () => said }
}

test('a guest that never ends its line, or its talk, is cut off and costs what one answer may cost', async () => {
  const endless = flood(Buffer.alloc(1_000, 'x'))
  const cut = await runInGuest(endless.connection, ['true'], 10_000, systemClock)
  assert.deepEqual(cut, {
    kind: 'failed',
    reason: 'the guest agent says more than fits into an answer',
  })
  assert.equal(endless.connection.destroyed, true)
  assert.ok(endless.said() <= 2 * LINE_BYTES_MAX, `${endless.said()} bytes were taken`)
  const talkative = flood(Buffer.from('{}\n'.repeat(1_000)))
  const said = await runInGuest(talkative.connection, ['true'], 10_000, systemClock)
  assert.deepEqual(said, {
    kind: 'failed',
    reason: 'the guest agent says more than anybody asked for',
  })
  assert.ok(talkative.said() <= 2 * TALK_BYTES_MAX)
})

test('while a line waits to be read, nothing more is taken from a guest', async () => {
  const [ours, theirs] = duplexPair()
  let taken = 0
  theirs.on('data', () => undefined)
  const push = () => {
    while (taken < 8 * LINE_BYTES_MAX) {
      taken += 3_000
      if (!theirs.write('{}\n'.repeat(1_000))) return
    }
  }
  theirs.on('drain', push)
  push()
  // The time of the first question is over at once, so nobody reads the second line.
  const run = await runInGuest(ours, ['true'], 0, systemClock)
  assert.equal(run.kind, 'failed')
  assert.ok(taken < LINE_BYTES_MAX, `${taken} bytes were taken`)
})

test('a watch answers at once, goes on by itself, and keeps the moment of the first success', async () => {
  let looks = 0
  const { probes, clock } = probesOf({ console: () => (++looks < 4 ? '' : 'READY\n') })
  clock.now = 1_000
  const wanted: Probe = { kind: 'boot', marker: 'READY' }
  const first = probes.watch(() => guest(), wanted)
  assert.deepEqual([first.ok, first.detail], [false, 'the first look is under way'])
  while (looks < 4) await new Promise(setImmediate)
  await new Promise(setImmediate)
  clock.now += 20_000
  const later = probes.watch(() => guest(), wanted)
  assert.deepEqual([later.ok, later.since_start_ms], [true, 1_750])
  assert.equal(looks, 4, 'nobody looks again at what has succeeded')
  probes.close()
})

test('a watch ends when nobody asks for a minute, and when its guest was started anew', async () => {
  let looks = 0
  const { probes, clock } = probesOf({ console: () => (looks++, '') })
  probes.watch(() => guest(), { kind: 'boot', marker: 'never' })
  while (clock.now <= 60_000) await new Promise(setImmediate)
  await new Promise(setImmediate)
  const before = looks
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
  assert.equal(looks, before)
  let sinceMs = 1_000_000
  probes.watch(() => guest({ sinceMs }), { kind: 'boot', marker: 'anew' })
  sinceMs += 1
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
  const after = looks
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
  assert.ok(looks - before <= 2 && looks === after)
  probes.close()
})
