// SPDX-License-Identifier: Apache-2.0

/** What a user of the simulator sees of its controls: faults, records, limits, time. Loopback only, no root. */
import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { runSimulator, type Simulator, startSimulator } from '#simulator'

// biome-ignore lint/suspicious/noExplicitAny: JSON, asserted on field by field
type Body = Record<string, any>
type Reply = { readonly status: number; readonly headers: Headers; readonly body: Body }

describe('simulator', () => {
  let simulator: Simulator
  let token: string
  before(async () => {
    simulator = await startSimulator()
  })
  after(() => simulator.close())
  beforeEach(async () => {
    simulator.reset()
    token = await login()
    simulator.forgetRequests()
  })

  async function login(): Promise<string> {
    const { username: name, password, project } = simulator.accounts.demo
    const domain = { name: 'Default' }
    const auth = {
      identity: { methods: ['password'], password: { user: { name, domain, password } } },
      scope: { project: { name: project, domain } },
    }
    const response = await fetch(`${simulator.authUrl}/auth/tokens`, { method: 'POST', body: JSON.stringify({ auth }) })
    await response.text()
    return response.headers.get('x-subject-token') ?? ''
  }

  async function send(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Reply> {
    const response = await fetch(`${simulator.url}${path}`, {
      method,
      headers: { 'x-auth-token': token },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(signal !== undefined && { signal }),
    })
    const text = await response.text()
    return { status: response.status, headers: response.headers, body: text === '' ? {} : JSON.parse(text) }
  }
  const ports = '/network/v2.0/ports'
  const portId = (): string => simulator.demo().servers['worker-1']!.ports[0]!.id
  const rename = (name: string, signal?: AbortSignal): Promise<Reply> =>
    send('PUT', `${ports}/${portId()}`, { port: { name } }, signal)
  const nameNow = async (): Promise<string> => (await send('GET', `${ports}/${portId()}`)).body['port'].name

  test('inject: answer 429 with Retry-After leaves everything as it was, once', async () => {
    await send('POST', '/simulator/inject', {
      act: 'answer',
      method: 'PUT',
      path: '/ports/',
      status: 429,
      headers: { 'retry-after': '3' },
    })
    const reply = await rename('one')
    assert.equal(reply.status, 429)
    assert.equal(reply.headers.get('retry-after'), '3')
    assert.equal(await nameNow(), 'worker-1-eth0')
    assert.equal((await rename('two')).status, 200)
  })

  test('inject: partial leaves out the last or first entries of a list, and of the addresses of a port, once', async () => {
    const whole = (await send('GET', ports)).body['ports'].length
    simulator.inject({ act: 'partial', missing: 2 })
    assert.equal((await send('GET', ports)).body['ports'].length, whole - 2)
    simulator.inject({ act: 'partial' })
    assert.deepEqual((await send('GET', `${ports}/${portId()}`)).body['port'].fixed_ips, [])
    assert.equal((await send('GET', `${ports}/${portId()}`)).body['port'].fixed_ips.length, 1)
    const [, second] = (await send('GET', ports)).body['ports']
    simulator.inject({ act: 'partial', from: 'start' })
    assert.equal((await send('GET', ports)).body['ports'][0].id, second.id)
  })

  test('inject: answer-after does it and says that it failed', async () => {
    simulator.inject({ act: 'answer-after', method: 'PUT', status: 504 })
    assert.equal((await rename('done')).status, 504)
    assert.equal(await nameNow(), 'done')
  })

  test('inject: cut closes the connection before, cut-after behind the effect', async () => {
    simulator.inject({ act: 'cut', method: 'PUT' })
    await assert.rejects(rename('never'))
    assert.equal(await nameNow(), 'worker-1-eth0')
    simulator.inject({ act: 'cut-after', method: 'PUT' })
    await assert.rejects(rename('done'))
    assert.equal(await nameNow(), 'done')
  })

  test('inject: hang-after does it and never answers', async () => {
    simulator.inject({ act: 'hang-after', method: 'PUT' })
    await assert.rejects(rename('done', AbortSignal.timeout(300)))
    assert.equal(await nameNow(), 'done')
  })

  test('inject: stale shows a list and a port as they were', async () => {
    await rename('new')
    simulator.inject({ act: 'stale', method: 'GET', times: 2 })
    assert.equal((await send('GET', ports)).body['ports'].length, 0, 'a minute ago there was no port')
    assert.equal((await send('GET', `${ports}/${portId()}`)).status, 404)
    simulator.inject({ act: 'stale', method: 'GET', ageMs: 0 })
    assert.equal(await nameNow(), 'new')
  })

  test('inject: latency is added to one request after those to skip', async () => {
    simulator.inject({ act: 'delay', method: 'GET', skip: 1, latencyMs: 200 })
    const elapsed = async (): Promise<number> => {
      const startMs = performance.now()
      await nameNow()
      return performance.now() - startMs
    }
    await elapsed()
    assert.ok((await elapsed()) >= 195)
  })

  test('requests: counts by method and path, and says what was injected', async () => {
    await login()
    simulator.inject({ act: 'answer', method: 'PUT' })
    await rename('x')
    const tokens = await send('GET', '/simulator/requests?method=POST&path=/auth/tokens$')
    assert.equal(tokens.body['count'], 1)
    assert.deepEqual(
      simulator.requests('PUT').map(({ status, injected }) => [status, injected]),
      [[503, 'answer']],
    )
  })

  test('tokens/expire: the next request is 401, a new token works', async () => {
    assert.equal((await send('GET', ports)).status, 200)
    await send('POST', '/simulator/tokens/expire')
    assert.equal((await send('GET', ports)).status, 401)
    token = await login()
    assert.equal((await send('GET', ports)).status, 200)
  })

  test('settings and quotas: limits change while it runs', async () => {
    await send('PUT', '/simulator/settings', { maxRoutes: 1, latency: { readMs: 1 } })
    const routes = ['10.1.0.0/16', '10.2.0.0/16'].map(destination => ({ destination, nexthop: '10.10.10.11' }))
    const path = `/network/v2.0/routers/${simulator.demo().router_id}/add_extraroutes`
    const reply = await send('PUT', path, { router: { routes } })
    assert.equal(reply.body['NeutronError'].type, 'RoutesExhausted')
    await send('PUT', `/simulator/quotas/${simulator.demo().project_id}`, { port: 0 })
    const over = await send('POST', ports, { port: { network_id: simulator.demo().network_id } })
    assert.equal(over.body['NeutronError'].type, 'OverQuota')
    const bad = await send('PUT', '/simulator/settings', { banana: 1 })
    assert.equal(bad.status, 400)
    assert.match(bad.body['error'], /Cannot set "banana"/)
    await send('PUT', '/simulator/settings', { maxRoutes: 30, latency: 'quick' })
  })

  test('reset: the demo objects are there anew', async () => {
    const before = simulator.demo()
    await send('POST', `/network/v2.0/networks`, { network: { name: 'mine' } })
    const { body } = await send('POST', '/simulator/reset')
    assert.notEqual(body['network_id'], before.network_id)
    token = await login()
    const names = (await send('GET', '/network/v2.0/networks')).body['networks'].map(
      (row: { name: string }) => row.name,
    )
    assert.deepEqual(names.sort(), ['public', 'workers'])
  })
})

test('runSimulator: writes clouds.yaml for its owner, then the ids, prints no password, and ends with the signal', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'simulator-test-'))
  try {
    const cloudsYaml = join(directory, 'clouds.yaml')
    const demoJson = join(directory, 'demo.json')
    const ending = new AbortController()
    const lines: string[] = []
    const accounts = {
      demo: { username: 'demo', password: 'secret-one', project: 'demo' },
      admin: { username: 'admin', password: 'secret-two', project: 'admin' },
    }
    const print = (line: string): void => {
      lines.push(line)
      if (lines.length === 3) ending.abort()
    }
    await runSimulator({ cloudsYaml, demoJson, accounts }, print, ending.signal)
    assert.equal(statSync(cloudsYaml).mode & 0o777, 0o600)
    assert.match(readFileSync(cloudsYaml, 'utf8'), /secret-one/)
    assert.deepEqual(Object.keys(JSON.parse(readFileSync(demoJson, 'utf8')).servers), ['worker-1', 'worker-2'])
    assert.doesNotMatch(lines.join('\n'), /secret/)
    assert.match(lines.join('\n'), /^export OS_CLIENT_CONFIG_FILE=/m)
  } finally {
    await rm(directory, { recursive: true })
  }
})
