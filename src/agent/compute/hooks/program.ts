import { spawn } from 'node:child_process'
import { type Clock, sleep } from '#base/clock.ts'
import { killAndWait, processesWithArgument, signalProcess } from '#base/system/process.ts'

/* One call of the operator's program: PROGRAM VERB SERVER MARK, a question on its standard input, an answer on its standard output.
 *
 * It runs in a process group of its own. When its time is over the group is ended, politely first; what the program has put into a session
 * of its own, as guests must be, stays. MARK is the same argument for all calls of one agent, so that calls which outlived a killed agent are
 * found and ended before a new agent begins: two of them would get into each other's way.
 */

/** Longest answer, and the longest console. */
const ANSWER_BYTES_MAX = 4 * 1024 * 1024
const REASON_CHARS_MAX = 600
/** Between the polite and the other way. */
const POLITE_MS = 2_000
const END_LIMIT_MS = 10_000
/** For what a program wrote last and somebody else keeps the pipe of. */
const PIPE_MS = 500

/** Says: I do not do this. */
export const EXIT_UNSUPPORTED = 3

export interface HookCall {
  readonly verb: string
  readonly server: string
  readonly question: unknown
  readonly limitMs: number
}

export type HookAnswer =
  | { readonly kind: 'done'; readonly output: string }
  | { readonly kind: 'unsupported' }
  | { readonly kind: 'failed'; readonly reason: string }

export interface HookProgram {
  /** Never rejects. */
  call(call: HookCall): Promise<HookAnswer>
  /** Ends calls that an earlier agent left. */
  endLeftovers(): Promise<void>
  /** Ends what is under way. */
  close(): Promise<void>
}

export interface HookProgramOptions {
  readonly program: string
  readonly mark: string
  /** Where it runs. */
  readonly directory: string
  readonly clock: Clock
}

export function hookProgram({ program, mark, directory, clock }: HookProgramOptions): HookProgram {
  const running = new Set<{ end(): void; readonly ended: Promise<unknown> }>()

  function call({ verb, server, question, limitMs }: HookCall): Promise<HookAnswer> {
    const child = spawn(program, [verb, server, mark], {
      cwd: directory,
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const { stdin, stdout, stderr, pid } = child
    const isOver = () => child.exitCode !== null || child.signalCode !== null
    const signalGroup = (name: NodeJS.Signals) => {
      if (pid !== undefined) signalProcess(-pid, name)
    }
    let ending: string | undefined
    const end = (why: string) => {
      ending ??= why
      if (isOver()) return
      signalGroup('SIGTERM')
      clock.after(POLITE_MS, () => {
        if (!isOver()) signalGroup('SIGKILL')
      })
    }
    const cancelLimit = clock.after(limitMs, () => end(`it took longer than ${limitMs} ms`))
    const output: Buffer[] = []
    let bytes = 0
    stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= ANSWER_BYTES_MAX) output.push(chunk)
      else end(`it answered more than ${ANSWER_BYTES_MAX} bytes`)
    })
    let said = ''
    stderr.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-REASON_CHARS_MAX)
    })
    // A program that does not read its question is free to do so.
    stdin.on('error', () => stdin.destroy())
    stdin.end(`${JSON.stringify(question)}\n`)

    const drained = Promise.all(
      [stdout, stderr].map(
        (stream) => new Promise<void>((resolve) => stream.once('close', resolve)),
      ),
    )
    const exited = new Promise<HookAnswer | undefined>((resolve) => {
      child.once('error', (error) =>
        resolve({ kind: 'failed', reason: `it could not be run: ${error.message}` }),
      )
      // `exit` and not `close`: a guest that keeps our pipes open must not keep us waiting for its end.
      child.once('exit', () => resolve(undefined))
    })
    const answer = exited.then(async (failure) => {
      if (failure !== undefined) return failure
      await Promise.race([drained, sleep(clock, PIPE_MS)])
      for (const stream of [stdout, stderr]) stream.destroy()
      if (ending !== undefined) signalGroup('SIGKILL')
      if (ending !== undefined) return { kind: 'failed' as const, reason: ending }
      if (child.exitCode === 0) {
        return { kind: 'done' as const, output: Buffer.concat(output).toString() }
      }
      if (child.exitCode === EXIT_UNSUPPORTED) return { kind: 'unsupported' as const }
      const how =
        child.exitCode === null
          ? `it was ended by ${child.signalCode}`
          : `it ended with ${child.exitCode}`
      const reason = said.trim().replaceAll(/\s*\n\s*/g, ' · ')
      return { kind: 'failed' as const, reason: reason === '' ? how : reason }
    })
    const entry = { end: () => end('the agent stops'), ended: answer }
    running.add(entry)
    return answer.finally(() => {
      cancelLimit()
      running.delete(entry)
    })
  }

  return {
    call,
    async endLeftovers() {
      for (const facts of await processesWithArgument(mark)) {
        await killAndWait(clock, facts, END_LIMIT_MS)
      }
    },
    async close() {
      const now = [...running]
      for (const one of now) one.end()
      await Promise.all(now.map(({ ended }) => ended))
    },
  }
}
