/** Real guests under a real driver on the switch of a site: who reaches whom, what probes see, and what a killed agent does to it. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Value } from 'typebox/value'
import { definitionOf } from '#agent/compute/switch/nic.test-kit.ts'
import { knock } from '#base/system/door.ts'
import { type Probe, ProbeAnswer } from '#wire/site/probes.ts'
import type { ServerDefinition, ServerNic } from '#wire/site/servers.ts'
import { type GuestLab, openGuestLab, QEMU } from '../support/guest-lab.ts'
import { until } from '../support/until.ts'
import { testImages } from '../support/images.ts'

const CHILD = fileURLToPath(new URL('../support/guest-agent-child.ts', import.meta.url))
/** Guests share the processors with everything else, and have the lower priority. */
const LIMIT_MS = 300_000
const MIB = 1024 * 1024

/* `outsider` is in a domain of its own that uses the very same addresses. */
const own = { ...definitionOf(1, 0, 10), port: 'inquisitive' }
const neighbour = { ...definitionOf(1, 0, 11), port: 'neighbour' }
const outsider: ServerNic = {
  ...definitionOf(1, 0, 12),
  port: 'outsider',
  network: 'other-network',
  domain: 'other-domain',
}

/** What the guest tries, as a user with all rights in it would. Each line that begins with TRY says how one attempt ended. */
const INQUISITIVE = `#!holdfast
while [ ! -e /run/lease ]; do sleep 0.2; done
attempt() { name=$1; shift; if "$@" > /run/attempt 2>&1; then echo "TRY $name REACHED"; else echo "TRY $name NOTHING"; fi; }
ping -c 1 -W 5 10.1.0.1 > /run/ping 2>&1 && echo "GATEWAY"
web() { printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 "$1" 80 | grep '200 OK'; }
until web 10.1.0.11; do sleep 0.5; done
echo "NEIGHBOUR"
attempt http web 10.1.0.12
attempt arp busybox arping -c 1 -w 1 -I eth0 10.1.0.12
ip neigh replace 10.1.0.12 lladdr ${outsider.mac} dev eth0
attempt unicast ping -c 1 -W 1 10.1.0.12
ip neigh replace 10.1.0.12 lladdr ff:ff:ff:ff:ff:ff dev eth0
attempt broadcast ping -c 1 -W 1 10.1.0.12
ip neigh del 10.1.0.12 dev eth0
ip route add 10.1.0.12/32 via 10.1.0.1 dev eth0
attempt gateway ping -c 1 -W 1 10.1.0.12
ip route del 10.1.0.12/32
ip addr add 10.1.0.77/24 dev eth0
attempt spoofed-address ping -c 1 -W 1 -I 10.1.0.77 10.1.0.11
ip addr del 10.1.0.77/24 dev eth0
ip link set eth0 down
ip link set eth0 address ${outsider.mac}
ip link set eth0 up
attempt spoofed-mac ping -c 1 -W 1 10.1.0.11
ip link set eth0 down
ip link set eth0 address ${own.mac}
ip link set eth0 up
echo "TRIED ALL"
n=0
while :; do
  if ping -c 1 -W 1 10.1.0.11 > /run/ping 2>&1; then n=$((n + 1)); echo "PONG $n"; fi
  sleep 0.3
done
`

/** Says how many frames it was ever given. */
const OUTSIDER = `#!holdfast
while [ ! -e /run/lease ]; do sleep 0.2; done
while :; do echo "FRAMES $(cat /sys/class/net/eth0/statistics/rx_packets)"; sleep 0.5; done
`

test('guests of two VPCs with the same addresses never reach each other, and a killed agent only pauses the network', async (t) => {
  if (spawnSync(QEMU, ['--version']).status !== 0) return t.skip(`${QEMU} is not installed`)
  const images = await testImages()
  if ('skip' in images) return t.skip(images.skip)
  const site = await startSite(t, join(images.directory, 'holdfast-tiny.raw'))
  const inquisitive = await site.startGuest(own, INQUISITIVE)
  await site.startGuest(neighbour)
  const apart = await site.startGuest(outsider, OUTSIDER)

  await apart.says(`NET eth0 ${outsider.address}/24`)
  await apart.says('FRAMES')
  const framesBefore = (await apart.lines('FRAMES')).at(0)
  await inquisitive.says(`NET eth0 ${own.address}/24`)
  await inquisitive.says('GATEWAY')
  await inquisitive.says('NEIGHBOUR')
  await inquisitive.says('TRIED ALL')
  const tries = await inquisitive.lines('TRY')
  assert.equal(tries.length, 7, tries.join('; '))
  assert.deepEqual(
    tries.filter((line) => !line.endsWith('NOTHING')),
    [],
  )

  const probe = async (kind: Probe, waitMs = 20_000) =>
    await site.probe(neighbour.port, kind, waitMs)
  const boot = await probe({ kind: 'boot' })
  assert.equal(boot.detail, `it uses its address ${neighbour.address}`)
  assert.equal((await probe({ kind: 'boot', marker: 'READY neighbour' })).ok, true)
  const web = { kind: 'http', port: 80, path: '/' } as const
  const page = await probe({ ...web, status: 200, contains: 'neighbour' })
  assert.equal(page.detail, 'status 200')
  assert.match(page.output, /^neighbour 1/)
  assert.ok(page.since_start_ms !== null && page.since_start_ms > 0)
  assert.equal((await probe({ kind: 'tcp', port: 80 })).detail, 'connection accepted')
  assert.equal((await probe({ kind: 'tcp', port: 81 }, 0)).detail, 'connection refused')
  assert.equal((await probe({ ...web, path: '/none' }, 0)).detail, 'status 404')
  const command = await probe({ kind: 'command', command: ['/bin/true'] }, 0)
  assert.match(command.detail, /^NO_GUEST_AGENT: no guest agent answers/)

  await inquisitive.says('PONG 2')
  await site.killAgent()
  const answered = (await inquisitive.lines('PONG')).length
  await site.startAgent()
  await inquisitive.says(`PONG ${answered + 3}`)
  // The new agent's switch has not heard a word of the neighbour's own accord: it asks.
  assert.equal((await probe({ kind: 'boot' })).ok, true)

  // Two DHCP answers at its boot, and nothing since.
  const seen = (await apart.lines('FRAMES')).length
  await apart.says('FRAMES', seen + 1)
  assert.equal((await apart.lines('FRAMES')).at(-1), framesBefore)
})

interface Guest {
  /** Waits for so many lines that begin so. */
  says(text: string, times?: number): Promise<void>
  lines(text: string): Promise<string[]>
}

interface Site {
  startAgent(): Promise<void>
  killAgent(): Promise<void>
  probe(server: string, probe: Probe, waitMs: number): Promise<ProbeAnswer>
  /** A server named after its port, from the image; `script` on a further disk. */
  startGuest(nic: ServerNic, script?: string): Promise<Guest>
}

/** An agent's half for guests, in a process of its own, with volumes for three guests. */
async function startSite(t: TestContext, image: string): Promise<Site> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-guests-'))
  let agent: ChildProcess | undefined
  const killAgent = async () => {
    const gone = agent?.signalCode === null ? once(agent, 'exit') : null
    agent?.kill('SIGKILL')
    await gone
    agent = undefined
  }
  const startAgent = async () => {
    agent = spawn(process.execPath, [CHILD, directory], { stdio: ['ignore', 'pipe', 'inherit'] })
    assert.ok(agent.stdout)
    await once(agent.stdout, 'data')
  }
  t.after(async () => {
    await killAgent()
    const lab = await openGuestLab(directory)
    await lab.driver.endStrays(new Set())
    await lab.close()
    await rm(directory, { recursive: true, force: true })
  })

  const lab = await openGuestLab(directory)
  for (const { port } of [own, neighbour, outsider]) await fillFrom(lab, port, image)
  await fillWith(lab, `${own.port}-script`, INQUISITIVE)
  await fillWith(lab, `${outsider.port}-script`, OUTSIDER)
  await lab.close()
  await startAgent()

  const ask = async (command: string, request: object) => {
    const answer = await knock(join(directory, 'door'), { command, request })
    assert.ok(!JSON.stringify(answer).startsWith('{"error"'), JSON.stringify(answer))
    return answer
  }
  return {
    startAgent,
    killAgent,
    async probe(server, probe, waitMs) {
      const answer = await ask('probe', { server, probe, wait_ms: waitMs })
      return Value.Parse(ProbeAnswer, answer)
    },
    async startGuest(nic, script) {
      const disk = (volume: string, place: number) => ({
        volume,
        device: `/dev/vd${'ab'[place]}`,
        boot_index: place === 0 ? 0 : null,
      })
      const definition: ServerDefinition = {
        server: nic.port,
        generation: 1,
        name: nic.port,
        vcpus: 1,
        memory_mb: 128,
        disks: [nic.port, ...(script === undefined ? [] : [`${nic.port}-script`])].map(disk),
        nics: [nic],
      }
      await ask('define', { definition })
      await ask('start', { server: nic.port })
      return guestOf(join(directory, 'servers', nic.port, 'console.log'))
    },
  }
}

function guestOf(console: string): Guest {
  const lines = async (text: string) =>
    (await readFile(console, 'latin1')).split(/\r?\n/).filter((line) => line.startsWith(text))
  return {
    lines,
    async says(text, times = 1) {
      const come = async () => (await lines(text)).length >= times
      await until(`"${text}" in ${console}`, come, LIMIT_MS).catch(async (error: unknown) => {
        throw new Error(`the console says:\n${await readFile(console, 'latin1')}`, {
          cause: error,
        })
      })
    },
  }
}

async function fillFrom(lab: GuestLab, volume: string, image: string): Promise<void> {
  const file = await open(image)
  try {
    const { size } = await file.stat()
    await lab.volumes.create(volume, size, { mode: 'standalone' }, 'lab', async (data) => {
      const zeroes = Buffer.alloc(MIB)
      for (let at = 0; at < size; at += MIB) {
        const { buffer } = await file.read(Buffer.alloc(MIB), 0, MIB, at)
        if (!buffer.equals(zeroes)) await data.write(buffer, 0, MIB, at)
      }
    })
  } finally {
    await file.close()
  }
}

async function fillWith(lab: GuestLab, volume: string, text: string): Promise<void> {
  const content = Buffer.alloc(MIB)
  content.write(text)
  await lab.volumes.create(volume, MIB, { mode: 'standalone' }, 'lab', async (data) => {
    await data.write(content, 0, MIB, 0)
  })
}
