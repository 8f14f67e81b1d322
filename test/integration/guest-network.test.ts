/** Real guests on the switch of a site: who reaches whom, and what a killed agent does to it. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Netdev } from '#agent/compute/driver.ts'
import { definitionOf } from '#agent/compute/switch/nic.test-kit.ts'
import type { ServerNic } from '#wire/site/servers.ts'
import { testImages } from '../support/images.ts'

const QEMU = 'qemu-system-x86_64'
const BOOT_LIMIT_MS = 60_000
const SCRIPT_BYTES = 65_536

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
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-guests-'))
  t.after(() => rm(directory, { recursive: true, force: true }))

  const agent = await startSwitch(t, directory)
  const [ownEnd, neighbourEnd, outsiderEnd] = agent.netdevs as [Netdev, Netdev, Netdev]
  const places = { directory, image: join(images.directory, 'holdfast-tiny.raw') }
  const guests = [
    await startGuest(t, places, own, ownEnd, INQUISITIVE),
    await startGuest(t, places, neighbour, neighbourEnd),
    await startGuest(t, places, outsider, outsiderEnd, OUTSIDER),
  ] as const
  const [inquisitive, , apart] = guests

  await Promise.all([
    inquisitive.says(`NET eth0 ${own.address}/24`),
    apart.says(`NET eth0 ${outsider.address}/24`),
    apart.says('FRAMES'),
  ])
  const framesBefore = (await apart.lines('FRAMES')).at(0)

  await inquisitive.says('GATEWAY')
  await inquisitive.says('NEIGHBOUR')
  await inquisitive.says('TRIED ALL')
  const tries = await inquisitive.lines('TRY')
  assert.equal(tries.length, 7, tries.join('; '))
  assert.deepEqual(
    tries.filter((line) => !line.endsWith('NOTHING')),
    [],
  )

  await inquisitive.says('PONG 2')
  agent.process.kill('SIGKILL')
  await once(agent.process, 'exit')
  const answered = (await inquisitive.lines('PONG')).length
  const again = await startSwitch(t, directory)
  assert.deepEqual(again.netdevs, agent.netdevs)
  await inquisitive.says(`PONG ${answered + 3}`)

  // Two DHCP answers at its boot, and nothing since.
  const seen = (await apart.lines('FRAMES')).length
  await apart.saysOften('FRAMES', seen + 1)
  assert.equal((await apart.lines('FRAMES')).at(-1), framesBefore)
})

interface Guest {
  says(text: string): Promise<void>
  saysOften(text: string, times: number): Promise<void>
  /** That begin so. */
  lines(text: string): Promise<string[]>
}

async function startGuest(
  t: TestContext,
  { directory, image }: { readonly directory: string; readonly image: string },
  { port, mac }: ServerNic,
  netdev: Netdev,
  script?: string,
): Promise<Guest> {
  // What the guest writes goes to a temporary file: the image stays as it is.
  const disks = [`file=${image},snapshot=on`]
  if (script !== undefined) {
    const file = join(directory, `${port}.script`)
    const bytes = Buffer.alloc(SCRIPT_BYTES)
    bytes.write(script)
    await writeFile(file, bytes)
    disks.push(`file=${file}`)
  }
  const console = join(directory, `${port}.console`)
  await writeFile(console, '')
  const machine =
    '-machine q35 -accel tcg -cpu max -m 128 -nodefaults -no-user-config -display none'
  const args = [
    ...machine.split(' '),
    '-serial',
    `file:${console}`,
    ...disks.flatMap((disk) => ['-drive', `${disk},format=raw,if=virtio`]),
    '-netdev',
    JSON.stringify({ ...netdev, id: 'net' }),
    '-device',
    `virtio-net-pci,netdev=net,mac=${mac},romfile=`,
  ]
  const guest = spawn(QEMU, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  t.after(() => guest.kill('SIGKILL'))
  const lines = async (text: string) =>
    (await readFile(console, 'latin1')).split(/\r?\n/).filter((line) => line.startsWith(text))
  const saysOften = async (text: string, times: number) => {
    const endMs = performance.now() + BOOT_LIMIT_MS
    while ((await lines(text)).length < times) {
      if (guest.exitCode !== null || performance.now() > endMs) {
        assert.fail(`${port} did not say "${text}":\n${await readFile(console, 'latin1')}`)
      }
      await sleep(100)
    }
  }
  return { saysOften, says: (text) => saysOften(text, 1), lines }
}

async function startSwitch(
  t: TestContext,
  directory: string,
): Promise<{ process: ChildProcess; netdevs: Netdev[] }> {
  const script = join(
    import.meta.dirname,
    '../../src/agent/compute/switch/switchboard.test-child.ts',
  )
  const args = [script, join(directory, 'net'), JSON.stringify([own, neighbour, outsider])]
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  return { process: child, netdevs: JSON.parse(line.toString()) as Netdev[] }
}
