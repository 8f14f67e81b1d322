/** `holdfast ...` in this process, as an administrator of an API without agents: starting the program takes longer than what it does. */
import { runCli } from '#cli/cli.ts'
import type { ApiLab } from './api.ts'

export interface Said {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** `origin`: where the lab listens. */
export async function commandLine(
  lab: ApiLab,
  origin: string,
  args: readonly string[],
): Promise<Said> {
  const { user, password, domain, project_id } = lab.admin
  let out = ''
  let err = ''
  const code = await runCli(args, {
    version: '0.0.0',
    streams: {
      out: { write: (text) => (out += text) },
      err: { write: (text) => (err += text) },
    },
    env: {
      OS_AUTH_URL: `${origin}/v3`,
      OS_USERNAME: user,
      OS_PASSWORD: password,
      OS_USER_DOMAIN_NAME: domain,
      OS_PROJECT_ID: project_id,
    },
    control: nothing('control'),
    agent: nothing('agent'),
    state: { backup: never, restore: never },
    self: [],
  })
  return { code, out, err }
}

const never = () => Promise.reject(new Error('not here'))
const nothing = (about: string) => ({ about, options: {}, start: never })
