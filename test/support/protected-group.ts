/** A complete system with one protected group of two pairs, and the command line against it. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { Lab } from '../lab.ts'

const PROGRAM = join(import.meta.dirname, '..', '..', 'src', 'main.ts')

export interface Member {
  /** The production disk. */
  readonly id: string
  readonly pair: string
  /** The disk at the DR site. */
  readonly dr: string
}

export interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

export interface GroupView {
  readonly sync: string
  readonly last_verified_at: string | null
  readonly mismatched_bytes: number
  readonly record: { readonly state: string; readonly writer: string }
}

export class ProtectedGroup {
  readonly lab: Lab
  readonly id: string
  readonly members: readonly [Member, Member]

  private constructor(lab: Lab, id: string, members: readonly [Member, Member]) {
    this.lab = lab
    this.id = id
    this.members = members
  }

  /** `flags`: of `holdfast up`. */
  static async start(...flags: string[]): Promise<ProtectedGroup> {
    const lab = await Lab.start(
      {
        HOLDFAST_PEER_SILENCE_MS: '1500',
        HOLDFAST_HEARTBEAT_MS: '200',
        HOLDFAST_RENEW_MS: '500',
        HOLDFAST_LEASE_MS: '3000',
      },
      ...flags,
    )
    try {
      await done(lab, 'group', 'create', 'g', '--source', 'az1', '--target', 'az2')
      const { groups } = await json<{ groups: { id: string }[] }>(lab, 'group', 'list')
      const id = groups[0]?.id ?? ''
      const one = await member(lab, id, 'one')
      const two = await member(lab, id, 'two')
      await done(lab, 'group', 'start', id)
      const group = new ProtectedGroup(lab, id, [one, two])
      await group.inSync()
      return group
    } catch (error) {
      await lab.close()
      throw error
    }
  }

  async show(): Promise<GroupView> {
    const path = `/api/v1/groups/${this.id}`
    return (await this.lab.ok<{ group: GroupView }>(200, 'GET', path)).group
  }

  async inSync(): Promise<void> {
    await this.lab.until(
      'the group is in sync',
      () => this.show(),
      ({ sync, record }) => sync === 'in_sync' && record.state === 'in_sync',
    )
  }

  /** Status and code; a refusal must say what to do next. */
  async codeOf(method: string, path: string, body?: unknown): Promise<[number, string]> {
    const reply = await this.lab.call<{ error?: { code: string; hint?: string } }>(
      method,
      path,
      body,
    )
    if (reply.status >= 400) assert.ok(reply.body.error?.hint, `${path} says what to do`)
    return [reply.status, reply.body.error?.code ?? '']
  }

  cli(...args: string[]): Promise<Ended> {
    return run(this.lab, args)
  }

  /** The data file of a volume. */
  file(site: string, volume: string): string {
    return join(this.lab.data, `${site}-agent`, 'volumes', volume, 'data')
  }

  /** Written and flushed where the volume or pair may be written now. */
  async write(name: string, offset: number, fill: number, length: number): Promise<void> {
    const client = await this.lab.nbd(name)
    await client.write(offset, Buffer.alloc(length, fill))
    await client.flush()
    await client.disconnect()
  }

  /** The last line of what a command with --json printed. */
  result<T>({ code, out, err }: Ended): T {
    assert.equal(code, 0, err)
    return JSON.parse(out.trim().split('\n').at(-1) ?? '') as T
  }
}

async function run(lab: Lab, args: readonly string[]): Promise<Ended> {
  const child = spawn(process.execPath, [PROGRAM, ...args, '--data', lab.data], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const [code] = (await once(child, 'close')) as [number]
  return { code, out, err }
}

async function done(lab: Lab, ...args: string[]): Promise<string> {
  const { code, out, err } = await run(lab, args)
  assert.equal(code, 0, `holdfast ${args.join(' ')}: ${err}`)
  return out
}

const json = async <T>(lab: Lab, ...args: string[]): Promise<T> =>
  JSON.parse(await done(lab, ...args, '--json')) as T

async function member(lab: Lab, group: string, name: string): Promise<Member> {
  const id = await lab.volume(1, 'az1', name)
  const args = ['pair', 'create', name, '--group', group, '--volume', id]
  const { entities } = await json<{ entities: Record<string, string> }>(lab, ...args)
  const pair = entities['replication_pair_id'] ?? ''
  const { volume_ids } = await json<{ volume_ids: string }>(lab, 'pair', 'show', pair)
  return { id, pair, dr: volume_ids.split(',')[1] ?? '' }
}
