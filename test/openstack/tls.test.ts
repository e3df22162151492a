// SPDX-License-Identifier: Apache-2.0

// Own certificates: the authority that is named is believed, no other. Needs the program openssl; loopback only, no root.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { deadlineIn } from '#base'
import { cloudFromConf, OpenStackError, openCloud } from '#openstack'
import { portOf, startFake } from './fake.ts'

const directory = mkdtempSync(join(tmpdir(), 'mooring-tls-'))
after(() => rmSync(directory, { recursive: true }))
const at = (name: string) => join(directory, name)
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' })

/** An authority, and a certificate that it signed for 127.0.0.1. */
function makeCertificates(): void {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=Test authority')
  openssl('req', ...key, '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=keystone')
  writeFileSync(at('san.cnf'), 'subjectAltName=IP:127.0.0.1\n')
  const sign = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'san.cnf']
  openssl('x509', '-req', '-in', 'server.csr', '-out', 'server.pem', ...sign)
}

before(makeCertificates)

const startTlsFake = () => {
  const tls = { key: readFileSync(at('server.key'), 'utf8'), cert: readFileSync(at('server.pem'), 'utf8') }
  return startFake(request => request.answer(200, { port: portOf('p1') }), { tls })
}
const confOf = (authUrl: string, extra: object) =>
  cloudFromConf({ username: 'u', password: 'password', project: 'p', authUrl, ...extra })
const limits = () => ({ deadline: deadlineIn(5_000) })

test('cacert is believed, insecure believes all, and without them nobody signed by nobody', async () => {
  await using fake = await startTlsFake()
  const get = async (extra: object) => {
    const session = openCloud(confOf(fake.url, extra))
    try {
      return (await session.neutron.ports.get('p1', limits()))?.id
    } finally {
      await session.close()
    }
  }
  assert.equal(await get({ cacert: at('ca.pem') }), 'p1')
  assert.equal(await get({ insecure: true }), 'p1')
  const before = fake.requests.length
  await assert.rejects(get({}), (error: unknown) => {
    assert.ok(error instanceof OpenStackError)
    assert.deepEqual([error.service, error.type, error.kind], ['keystone', 'TlsFailed', 'permanent'])
    assert.match(error.message, /cannot be trusted: .*; name the authority that signed the certificate \("cacert"\)/)
    return true
  })
  assert.equal(fake.requests.length, before, 'the password was not sent')
  await assert.rejects(get({ cacert: at('none.pem') }), /Cannot read cacert ".*none\.pem": ENOENT; name a PEM file/)
})

test('a cacert that could not be read is read again by the next call', async () => {
  await using fake = await startTlsFake()
  const session = openCloud(confOf(fake.url, { cacert: at('late.pem') }))
  await using _session = { [Symbol.asyncDispose]: () => session.close() }
  await assert.rejects(session.neutron.ports.get('p1', limits()), /Cannot read cacert/)
  copyFileSync(at('ca.pem'), at('late.pem'))
  assert.equal((await session.neutron.ports.get('p1', limits()))?.id, 'p1')
})
