import { networkInterfaces } from 'node:os'
import { run, tryRun } from './run.ts'

/* Three machines as network namespaces, and a fourth namespace with the switch that joins them.
 *
 *     az1 ─── p-az1 ┐
 *     az2 ─── p-az2 ├─ br0   (namespace of the switch; what is cut is cut here)
 *     ctl ─── p-ctl ┤
 *     op  ─── p-op  ┘        the operator: the runner's own namespace
 *
 * A frame is dropped while it is forwarded, so that a cut looks to both ends like a network that went silent: no error, no
 * reset, no lost carrier. Every cut has a direction.
 */

export const HOSTS = ['az1', 'az2', 'ctl'] as const
export type Host = (typeof HOSTS)[number]
export type End = Host | 'op'

const ENDS: readonly End[] = [...HOSTS, 'op']
/** 198.18.0.0/15 is set aside for tests of networks. */
const NET = '198.18'

export const namespaceOf = (lab: string, host: Host | 'switch'): string => `hft-${lab}-${host}`
const operatorLink = (lab: string): string => `hft${lab}o`

export class Network {
  readonly #lab: string
  readonly #octet: number
  /** By rule: how many cuts ask for it. */
  readonly #blocked = new Map<string, number>()

  private constructor(lab: string, octet: number) {
    this.#lab = lab
    this.#octet = octet
  }

  /** `lab`: at most 8 letters and digits, unique on this machine. */
  static async create(lab: string): Promise<Network> {
    const network = new Network(lab, freeOctet())
    const bridge = namespaceOf(lab, 'switch')
    await run('ip', 'netns', 'add', bridge)
    await run('ip', '-n', bridge, 'link', 'add', 'br0', 'type', 'bridge')
    await run('ip', '-n', bridge, 'link', 'set', 'br0', 'up')
    for (const end of ENDS) await network.#attach(end, bridge)
    await network.#switchRules(
      'add table bridge cut',
      'add chain bridge cut pass { type filter hook forward priority 0; policy accept; }',
    )
    return network
  }

  async #attach(end: End, bridge: string): Promise<void> {
    const port = `p-${end}`
    const subnet = `${this.address(end)}/24`
    if (end === 'op') {
      const link = operatorLink(this.#lab)
      await run('ip', 'link', 'add', link, 'type', 'veth', 'peer', 'name', port, 'netns', bridge)
      await run('ip', 'addr', 'add', subnet, 'dev', link)
      await run('ip', 'link', 'set', link, 'up')
    } else {
      const space = namespaceOf(this.#lab, end)
      await run('ip', 'netns', 'add', space)
      await run('ip', '-n', space, 'link', 'set', 'lo', 'up')
      await run(
        'ip',
        '-n',
        space,
        'link',
        'add',
        'wan',
        'type',
        'veth',
        'peer',
        'name',
        port,
        'netns',
        bridge,
      )
      await run('ip', '-n', space, 'addr', 'add', subnet, 'dev', 'wan')
      await run('ip', '-n', space, 'link', 'set', 'wan', 'up')
    }
    await run('ip', '-n', bridge, 'link', 'set', port, 'master', 'br0', 'up')
  }

  address(end: End): string {
    return `${NET}.${this.#octet}.${ENDS.indexOf(end) + 1}`
  }

  /** From now on nothing that `from` sends reaches `to`, until every cut of this way is mended. */
  async cut(from: End, to: End): Promise<void> {
    await this.#count(from, to, 1)
  }

  async mend(from: End, to: End): Promise<void> {
    await this.#count(from, to, -1)
  }

  async #count(from: End, to: End, change: number): Promise<void> {
    const rule = `iifname "p-${from}" oifname "p-${to}" drop`
    const cuts = (this.#blocked.get(rule) ?? 0) + change
    if (cuts > 0) this.#blocked.set(rule, cuts)
    else this.#blocked.delete(rule)
    await this.#apply()
  }

  async mendAll(): Promise<void> {
    this.#blocked.clear()
    await this.#apply()
  }

  /** Resets every TCP connection between two machines, at both ends. Returns how many sockets were killed. */
  async reset(a: Host, b: Host): Promise<number> {
    let killed = 0
    for (const [here, there] of [
      [a, b],
      [b, a],
    ] as const) {
      const space = namespaceOf(this.#lab, here)
      const out = await run(
        'ip',
        'netns',
        'exec',
        space,
        'ss',
        '-H',
        '-K',
        'dst',
        this.address(there),
      )
      killed += out.split('\n').filter((line) => line !== '').length
    }
    return killed
  }

  async #apply(): Promise<void> {
    await this.#switchRules(
      'flush chain bridge cut pass',
      ...[...this.#blocked.keys()].map((rule) => `add rule bridge cut pass ${rule}`),
    )
  }

  async #switchRules(...lines: string[]): Promise<void> {
    const space = namespaceOf(this.#lab, 'switch')
    const { code, complaints } = await tryRun(
      'ip',
      ['netns', 'exec', space, 'nft', '-f', '-'],
      `${lines.join('\n')}\n`,
    )
    if (code !== 0) throw new Error(`nft refused: ${complaints}`)
  }
}

/** A third octet that no interface of this machine uses: several labs may run side by side. */
function freeOctet(): number {
  const used = new Set(
    Object.values(networkInterfaces())
      .flatMap((list) => list ?? [])
      .map(({ address }) => address)
      .filter((address) => address.startsWith(`${NET}.`))
      .map((address) => Number(address.split('.')[2])),
  )
  const start = process.pid % 256
  for (let step = 0; step < 256; step++) {
    const octet = (start + step) % 256
    if (!used.has(octet)) return octet
  }
  throw new Error(`every network of ${NET}.0.0 is in use`)
}

/** Removes what `create` made, as far as it is there. Processes inside must have ended. */
export async function removeNetwork(lab: string): Promise<void> {
  for (const host of [...HOSTS, 'switch'] as const) {
    await tryRun('ip', ['netns', 'del', namespaceOf(lab, host)])
  }
  await tryRun('ip', ['link', 'del', operatorLink(lab)])
}
