// Node with fastify doing the gateway's forwarding: remembered tokens, a local rate per subject, the key swapped.
// Arguments: its port, the upstream's port.
import jwt from '@fastify/jwt'
import limit from '@fastify/rate-limit'
import proxy from '@fastify/http-proxy'
import Fastify from 'fastify'

const [port, upstream] = process.argv.slice(2).map(Number)
const server = Fastify({ logger: false })
await server.register(jwt, { secret: 'x'.repeat(32), verify: { cache: true } })
await server.register(limit, {
  hook: 'preHandler', max: 1e9, timeWindow: 60_000, keyGenerator: request => request.user.sub
})
server.addHook('onRequest', async request => { await request.jwtVerify() })
const rewriteRequestHeaders = (_, headers) => ({ ...headers, authorization: 'Bearer sk-benchmark' })
await server.register(proxy, { upstream: `http://127.0.0.1:${upstream}`, replyOptions: { rewriteRequestHeaders } })
await server.listen({ port, host: '127.0.0.1' })
console.log('ready')
