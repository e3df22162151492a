// SPDX-License-Identifier: Apache-2.0

// Where the credentials of tcnp-ipam stand, and what is done when they are not at hand. Needs no root.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { mooring, neutronList, portOf, setUp } from './cloud.ts'
import { filesWith, type Node, until } from './node.ts'

test('"cloud" names a cloud of clouds.yaml, and a restart finishes a release by it', async t => {
  const { node, simulator, ipam, directory, restart } = await setUp(t)
  const { username, password, project } = simulator.accounts.demo
  const file = join(directory, 'clouds.yaml')
  const auth = {
    auth_url: simulator.authUrl,
    username,
    password,
    project_name: project,
    user_domain_id: 'default',
    project_domain_id: 'default',
  }
  writeFileSync(file, JSON.stringify({ clouds: { lab: { auth } } }), { mode: 0o600 })
  process.env['OS_CLIENT_CONFIG_FILE'] = file
  t.after(() => delete process.env['OS_CLIENT_CONFIG_FILE'])
  const { openstackConf: _, ...rest } = ipam
  const named = { ...rest, cloud: 'lab' }
  const before = neutronList(simulator)
  assert.equal((await node.call('ADD', 'c1', named)).exitCode, 0)
  simulator.inject({ method: 'PUT', act: 'answer', status: 503 })
  await node.call('DEL', 'c1', named)
  await restart()
  await until(() => neutronList(simulator).length === before.length, 'the removal')
})

test('the password of openstackConf is in no output, journal, token file or warning', async t => {
  const { node, simulator, ipam, directory } = await setUp(t)
  const { password } = simulator.accounts.demo
  const outputs: string[] = []
  const call = async (...args: Parameters<Node['call']>) => outputs.push((await node.call(...args)).stdout)
  await call('ADD', 'c1', ipam)
  await call('CHECK', 'c1', ipam)
  await call('STATUS', '', ipam)
  await call('DEL', 'c1', ipam)
  await call('ADD', 'c2', { ...ipam, openstackConf: { ...ipam.openstackConf, project: 'wrong' } })
  await call('ADD', 'c3', { ...ipam, openstackConf: { ...ipam.openstackConf, Password: [password] } })
  for (const text of [...outputs, ...node.warnings]) assert.ok(!text.includes(password), text)
  assert.deepEqual(filesWith(directory, password), [])
  assert.ok(node.warnings.some(each => each.includes('clouds.yaml')))
})

test('credentials that stand in the conflist: after a restart it is said that a release waits, and the next call does it', async t => {
  const { node, simulator, ipam, directory, restart } = await setUp(t)
  const before = neutronList(simulator)
  await node.call('ADD', 'c1', ipam)
  simulator.inject({ act: 'answer', method: 'PUT', status: 403, times: 1 })
  await node.call('DEL', 'c1', ipam)
  await until(() => simulator.requests().some(each => each.injected === 'answer'), 'the fault')
  const next = await restart()
  await until(() => next.warnings.length > 0, 'the warning')
  assert.equal(neutronList(simulator).length, before.length + 1)
  const [address] = neutronList(simulator).filter(each => !before.includes(each))
  const { output } = await mooring('ip', 'list', '--data-dir', directory)
  assert.match(output, new RegExp(`^${address} +releasing +.* - \\(waits for credentials\\)$`, 'm'))
  for (const text of [next.warnings[0]!, output]) {
    assert.ok(text.includes(`Cannot release ${address} of port ${portOf(simulator).id} yet`), text)
    assert.match(text, /openstackConf.*mooring drain --conflist/)
    assert.ok(!text.includes(simulator.accounts.demo.password))
  }
  await next.call('DEL', 'c1', ipam)
  await until(() => neutronList(simulator).length === before.length, 'the removal')
  assert.doesNotMatch((await mooring('ip', 'list', '--data-dir', directory)).output, /waits for credentials/)
})
