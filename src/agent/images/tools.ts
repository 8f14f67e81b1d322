import { spawn } from 'node:child_process'

/* Programs of the system that an image is made with: apt, dpkg-deb, mke2fs. None of them needs a privilege. */

/** What a tool wants to tell when it fails: the lines a person would look for. */
const ERROR_TEXT_MAX = 500
/** Longest run of one tool. Packages come through a slow line in less, and what hangs must not hang for ever. */
const LIMIT_MS = 15 * 60 * 1000

export interface ToolRun {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  /** Kills the tool. */
  readonly signal: AbortSignal
}

/** Its standard output, in pieces as it comes. Throws an Error that says which tool failed and what it wrote. */
export async function* toolOutput(
  program: string,
  args: readonly string[],
  run: ToolRun,
): AsyncGenerator<Buffer> {
  const child = spawn(program, args, {
    ...(run.cwd === undefined ? {} : { cwd: run.cwd }),
    // Tools of the system may live where only root looks, and speak other languages.
    env: {
      ...process.env,
      ...run.env,
      LC_ALL: 'C',
      PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    signal: AbortSignal.any([run.signal, AbortSignal.timeout(LIMIT_MS)]),
    killSignal: 'SIGKILL',
  })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-4 * ERROR_TEXT_MAX)
  })
  const ended = new Promise<string | undefined>((resolve) => {
    child.once('error', (error) =>
      resolve('code' in error && error.code === 'ENOENT' ? 'is not installed' : error.message),
    )
    child.once('close', (code, signal) =>
      resolve(code === 0 ? undefined : `ended with ${code ?? signal}: ${errorText(said)}`),
    )
  })
  for await (const chunk of child.stdout) yield chunk as Buffer
  const problem = await ended
  run.signal.throwIfAborted()
  if (problem !== undefined) throw new Error(`${program} ${problem}`)
}

/** All of its standard output as text. */
export async function runTool(
  program: string,
  args: readonly string[],
  run: ToolRun,
): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of toolOutput(program, args, run)) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

function errorText(said: string): string {
  const lines = said.split('\n').filter((line) => line.trim() !== '')
  const errors = lines.filter((line) => line.startsWith('E:'))
  return (errors.length > 0 ? errors : lines).join(' ').slice(-ERROR_TEXT_MAX) || 'no message'
}
