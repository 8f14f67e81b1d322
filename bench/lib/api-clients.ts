import { Agent, request } from 'node:http'

/* The clients of the question `api`, as a process of their own: each has a connection, and asks for the next thing when it has the answer.
 * A message is a task; the answer has how long each request took, milliseconds. */

export interface ClientsTask {
  readonly origin: string
  readonly token: string
  readonly project: string
  /** job: POST to the first path, then GET the job until it has ended. */
  readonly method: 'read' | 'job'
  readonly paths: readonly string[]
  readonly body?: unknown
  readonly clients: number
  /** Requests, or jobs, of each client. */
  readonly each: number
  /** Between an answer and the next request; 0: none. */
  readonly pauseMs: number
}

export type ClientsAnswer = { readonly times: readonly number[] } | { readonly error: string }

/** Between two looks at a job. */
const POLL_MS = 50

process.on('message', (task: ClientsTask) => {
  run(task).then(
    (times) => process.send?.({ times }),
    (error: unknown) => process.send?.({ error: String(error) }),
  )
})

async function run(task: ClientsTask): Promise<number[]> {
  const times: number[] = []
  await Promise.all(
    Array.from({ length: task.clients }, async (_, client) => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 })
      for (let turn = 0; turn < task.each; turn++) {
        const path = task.paths[(client * 7 + turn) % task.paths.length] ?? ''
        const startMs = performance.now()
        if (task.method === 'read') await send(task, agent, 'GET', path)
        else await job(task, agent, path)
        times.push(performance.now() - startMs)
        if (task.pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, task.pauseMs))
      }
      agent.destroy()
    }),
  )
  return times
}

async function job(task: ClientsTask, agent: Agent, path: string): Promise<void> {
  const { job_id } = JSON.parse(await send(task, agent, 'POST', path, task.body)) as {
    job_id: string
  }
  for (;;) {
    const text = await send(task, agent, 'GET', `/v1/${task.project}/jobs/${job_id}`)
    const { status } = JSON.parse(text) as { status: string }
    if (status === 'SUCCESS') return
    if (status === 'FAIL') throw new Error(text)
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

function send(
  { origin, token }: ClientsTask,
  agent: Agent,
  method: string,
  path: string,
  body?: unknown,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = {
      'x-auth-token': token,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    }
    const sent = request(`${origin}${path}`, { method, agent, headers }, (reply) => {
      const chunks: Buffer[] = []
      reply.on('data', (chunk: Buffer) => chunks.push(chunk))
      reply.on('end', () => {
        const text = Buffer.concat(chunks).toString()
        if (reply.statusCode === 200) resolve(text)
        else reject(new Error(`${method} ${path}: ${reply.statusCode} ${text}`))
      })
      reply.on('error', reject)
    })
    sent.on('error', reject)
    sent.end(body === undefined ? undefined : JSON.stringify(body))
  })
}
