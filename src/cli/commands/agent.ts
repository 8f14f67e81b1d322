import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline/promises'
import type { Command } from 'commander'
import { isFault } from '#base/fault.ts'
import { systemClock } from '#base/system/clock.ts'
import { sleep } from '#base/clock.ts'
import {
  agentRefusal,
  agentSessions,
  type LocalSessions,
  promoteSession,
  type SessionStatus,
} from '#client/agent-door.ts'
import { AGENT_ABSENT } from '#client/faults.ts'
import type { CommandContext } from '../context.ts'
import { columns, type Output } from '../output.ts'
import { partFiles, pathsUnder, REGIONS } from '../up/layout.ts'
import { usageError } from '../usage.ts'
import { partCommand } from './parts.ts'

/* `holdfast agent`: runs an agent; and, at an agent's own host and without any control plane, what its sessions are and break-glass. */

interface DoorFlags {
  readonly data?: string
  readonly dataDir?: string
  readonly site?: string
}

export function agentCommand(command: Command, context: CommandContext): void {
  partCommand(command, context, 'agent')
  const leaf = (name: string) =>
    context
      .leaf(command, name)
      .option('--data-dir <dir>', "the agent's data directory")
      .option('--data <dir>', 'directory of `holdfast up`, in place of --data-dir')
      .option('--site <site>', 'with --data: only this site, as `holdfast site` names it')

  const sessions = leaf('sessions').description(
    'list the sessions of the agent at this host: what it holds, since when it is out of touch',
  )
  sessions.action(async (flags: DoorFlags) => {
    const found = await ask(flags)
    const agents = found.map(({ said }) => said)
    const lines = found.flatMap(({ said }) => [...agentLines(said), ''])
    context.output(sessions).result({ agents }, lines.slice(0, -1))
  })

  const promote = leaf('promote')
    .description('break-glass: make this site the writer of a session, without the witness')
    .argument('<session>', 'the id of the protection group')
    .option('--force', 'required: the other site may be writing too, and its writes are given up')
    .option('--yes', 'do not ask for the name of the session again')
    .option('--timeout <seconds>', 'longest wait until the volumes may be written', '60')
  promote.action(async (session: string, flags: PromoteFlags) => {
    await promoteHere(context.output(promote), session, flags)
  })
}

// ---------------------------------------------------------------- which agent

interface Found {
  readonly socket: string
  readonly said: LocalSessions
}

/** The agents that the flags name and that answer; throws AGENT_ABSENT when none does. */
async function ask(flags: DoorFlags): Promise<readonly Found[]> {
  const sockets = socketsOf(flags)
  const found: Found[] = []
  let absent: unknown
  for (const socket of sockets) {
    try {
      found.push({ socket, said: await agentSessions(socket) })
    } catch (error) {
      if (!isFault(error, AGENT_ABSENT)) throw error
      absent = error
    }
  }
  if (found.length === 0) throw absent
  return found
}

function socketsOf({ data, dataDir, site }: DoorFlags): string[] {
  if (dataDir !== undefined) {
    if (data !== undefined || site !== undefined) {
      throw usageError('--data-dir names one agent: not with --data or --site')
    }
    return [join(resolve(dataDir), 'agent.sock')]
  }
  if (data === undefined) throw usageError('--data-dir, or --data of `holdfast up`, is required')
  const paths = pathsUnder(resolve(data))
  const sites = REGIONS.flatMap((region) => region.sites)
  const wanted = site === undefined ? sites : sites.filter(({ key }) => key === site)
  if (wanted.length === 0) {
    const known = sites.map(({ key }) => key).join(', ')
    throw usageError(`--site ${site} is not known, accepted: ${known}`)
  }
  return wanted.map(({ agent }) => join(partFiles(paths, agent).dataDir, 'agent.sock'))
}

// ---------------------------------------------------------------- sessions

function agentLines({ site, agent, control_reached, sessions }: LocalSessions): string[] {
  const control = control_reached ? 'reaches' : 'DOES NOT REACH'
  const head = `site ${site}, agent ${agent}: ${control} the control plane`
  if (sessions.length === 0) return [head, 'no sessions']
  return [
    head,
    ...columns(
      ['session', 'epoch', 'state', 'role', 'phase', 'link', 'copy', 'out of touch since'],
      sessions.map((one) => [
        one.session,
        one.epoch,
        one.unwitnessed ? `${one.state} (unwitnessed)` : one.state,
        one.role,
        one.phase,
        one.link,
        copyOf(one),
        one.out_of_touch_ms === null ? null : new Date(one.out_of_touch_ms).toISOString(),
      ]),
    ),
  ]
}

function copyOf({ role, consistent, torn, kept, unfit }: SessionStatus): string {
  if (unfit !== null) return unfit
  if (role === 'fenced') return 'fenced'
  if (torn === true) return kept === null ? 'lost power' : 'in a resync, kept what lost power'
  if (kept !== null) return 'in a resync, last consistent copy kept'
  return consistent ? 'consistent' : 'incomplete'
}

// ---------------------------------------------------------------- break-glass

interface PromoteFlags extends DoorFlags {
  readonly force?: boolean
  readonly yes?: boolean
  readonly timeout: string
}

const AGAIN_MS = 500

async function promoteHere(output: Output, session: string, flags: PromoteFlags): Promise<void> {
  const having = (await ask(flags)).filter(({ said }) =>
    said.sessions.some((one) => one.session === session),
  )
  const [one] = having
  if (one === undefined) throw usageError(`no agent here has the session ${session}`)
  if (having.length > 1) {
    const sites = having.map(({ said }) => said.site).join(' and ')
    throw usageError(`${sites} both have the session: --site names the one that survives`)
  }
  const { said, socket } = one
  const status = said.sessions.find((known) => known.session === session)
  if (status === undefined) throw usageError(`no agent here has the session ${session}`)
  for (const line of warnings(said, status)) output.say(line)
  if (flags.force !== true) throw usageError('break-glass needs --force')
  if (flags.yes !== true) await confirmed(session)
  const seconds = Number(flags.timeout)
  const endMs = systemClock.bootMs() + (Number.isFinite(seconds) ? seconds : 60) * 1_000
  const after = await untilServed(socket, session, endMs)
  output.result(after, [
    `${said.site} writes session ${session} under epoch ${after.epoch}, without the witness`,
    'Keep the other site off until the control plane is back; then this site presents its record by itself.',
  ])
}

/** The agent takes the decision at once; waiting out the old writer's contact takes a few seconds more. */
async function untilServed(socket: string, session: string, endMs: number): Promise<SessionStatus> {
  let taken = false
  for (;;) {
    try {
      return await promoteSession(socket, session, true)
    } catch (error) {
      const refusal = agentRefusal(error)
      if (taken && refusal === 'WRONG_STATE') {
        // It may write meanwhile, which is what was asked for.
        const { sessions } = await agentSessions(socket)
        const now = sessions.find((one) => one.session === session)
        if (now?.role === 'writer') return now
      }
      if (refusal !== 'NOT_YET' || systemClock.bootMs() > endMs) throw error
      taken = true
      await sleep(systemClock, AGAIN_MS)
    }
  }
}

function warnings(said: LocalSessions, status: SessionStatus): string[] {
  const lines = [
    `BREAK-GLASS: ${said.site} becomes the writer of session ${status.session} on your word alone.`,
  ]
  if (said.control_reached) {
    lines.push(
      'The control plane answers this agent: fail the group over there instead (`holdfast group failover`).',
    )
  }
  if (status.link === 'up') lines.push('The other site is linked to this one right now: it lives.')
  if (status.role === 'writer') lines.push('This site is the writer already; nothing is given up.')
  else lines.push(...lossLines(status))
  lines.push(
    'If the other site still runs, both write, and what it has written is set aside later as a divergence.',
  )
  return lines
}

function lossLines(status: SessionStatus): string[] {
  const { out_of_touch_ms: since, kept, consistent, torn, unfit } = status
  const lines: string[] = []
  if (since === null) {
    lines.push('Given up: whatever the other site acknowledged after its last word to this one.')
  } else {
    const seconds = Math.round((systemClock.wallMs() - since) / 1000)
    lines.push(
      `Given up: at least everything that the other site acknowledged since ${new Date(since).toISOString()} (${seconds} s ago); how much that is only it knows.`,
    )
  }
  if (kept !== null) {
    lines.push(
      'A resync was under way: this site goes back to the consistent copy that it kept when the resync began.',
    )
  } else if (!consistent && torn !== true) {
    lines.push('This site holds no consistent copy: the agent will refuse.')
  }
  if (torn === true) {
    lines.push(
      'This host lost its power since it was in step: what was flushed is there, of what was written last before that each block may be of another moment.',
    )
  }
  if (unfit !== null) lines.push(`This site's own copy is not usable: ${unfit}.`)
  return lines
}

async function confirmed(session: string): Promise<void> {
  if (process.stdin.isTTY !== true) throw usageError('there is nobody to ask: --yes is required')
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const typed = await lines.question('Type the name of the session to go on: ')
    if (typed.trim() !== session) throw usageError('that is not its name')
  } finally {
    lines.close()
  }
}
