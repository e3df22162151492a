// SPDX-License-Identifier: Apache-2.0

// Goal: what an operator asks at night stands on the metrics page of the agent: is the cloud sick, what waits, what is held;
// and the agent stays small. Needs root.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { makeCloudNode } from './crash/cloud.ts'
import { eventually, makeManyNetns, resultOf, skip } from './nodelab.ts'

/** A port that nobody has at the moment. */
async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise(resolve => server.close(resolve))
  return port
}

type Page = { readonly text: string; value(name: string, ...labels: string[]): number | undefined }

async function read(port: number): Promise<Page> {
  const response = await fetch(`http://127.0.0.1:${port}/metrics`)
  assert.equal(response.status, 200)
  const text = await response.text()
  return {
    text,
    value(name, ...labels) {
      const line = text.split('\n').find(each => each.startsWith(name) && labels.every(label => each.includes(label)))
      return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(' ') + 1))
    },
  }
}

test('the metrics page tells levels, requests, calls, addresses and what waits', {
  skip,
  timeout: 60_000,
}, async () => {
  await using cloud = await makeCloudNode('agent')
  const { node, simulator } = cloud
  const port = await freePort()
  await using agent = await node.startAgent({ args: ['--metrics', `127.0.0.1:${port}`, '--requests-per-second', '50'] })
  const pods = makeManyNetns('pod', 2).map((netns, index) => ({ containerId: `m${index}`, netns }))
  resultOf(await node.call('ADD', pods[0]!, cloud.options()))
  const { value } = await read(port)
  assert.equal(value('mooring_cloud_level', 'service="neutron"', 'level="normal"'), 1)
  assert.equal(value('mooring_cloud_level', 'service="neutron"', 'level="L0"'), 0)
  assert.equal(value('mooring_cloud_breaker', 'service="neutron"', 'state="closed"'), 1)
  assert.equal(value('mooring_cloud_requests_per_second_max'), 50)
  assert.ok(value('mooring_cloud_request_seconds_count', 'operation="PUT ports"', 'outcome="200"')! >= 1)
  assert.ok(value('mooring_cloud_wait_seconds_count', 'service="neutron"')! >= 1)
  assert.ok(value('mooring_call_seconds_count', 'command="ADD"', 'type="veth-route"', 'code="0"')! >= 1)
  assert.equal(value('mooring_addresses', 'state="assigned"'), 1)
  assert.equal(value('mooring_attachments', 'state="ready"'), 1)
  assert.equal(value('mooring_oldest_unserved_add_seconds'), 0)
  assert.ok(value('mooring_journal_bytes', 'file="journal"')! > 0)

  simulator.inject({ act: 'answer', status: 503, path: '/network/', times: 0 })
  const outcome = await node.call('ADD', pods[1]!, cloud.options())
  assert.notEqual(outcome.code, 0)
  resultOf(await node.call('DEL', pods[0]!, cloud.options()))
  while ((await read(port)).value('mooring_cloud_level', 'neutron', 'level="L0"') !== 1) await sleep(50)
  const sick = await read(port)
  assert.ok(sick.value('mooring_oldest_unserved_add_seconds')! > 0)
  assert.ok(sick.value('mooring_oldest_release_seconds')! > 0)
  assert.ok(sick.value('mooring_cloud_request_seconds_count', 'outcome="503"')! >= 1)
  const isTold = (line: string) => line.includes('cloud is sick') && line.includes('L0 (serve from what is held)')
  await eventually('the log tells it', () => agent.log.some(isTold))
  // What the agent itself needs, without the pages of Node.js that all its processes share.
  const ownKiB = Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${agent.pid}/status`, 'utf8'))?.[1])
  assert.ok(ownKiB < 80 * 1024, `${ownKiB} KiB`)
  assert.ok(!sick.text.includes(simulator.accounts.demo.password))
})

test('an address that is none is refused by name', { skip }, async () => {
  await using cloud = await makeCloudNode('agent')
  await assert.rejects(
    cloud.node.startAgent({ args: ['--metrics', 'localhost:9464'] }),
    /--metrics is "localhost:9464", want ADDRESS:PORT, such as 127\.0\.0\.1:9464/,
  )
})
