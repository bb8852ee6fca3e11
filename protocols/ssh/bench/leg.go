package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"
)

// serveLeg takes everybody in and carries their channels to addr, until ctx ends.
func serveLeg(ctx context.Context, addr, user string, key []byte) error {
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return err
	}
	_, own, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	host, err := ssh.NewSignerFromKey(own)
	if err != nil {
		return err
	}
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(host)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	fmt.Println(l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil
		}
		go func() {
			defer conn.Close()
			sc, channels, requests, err := ssh.NewServerConn(conn, config)
			if err != nil {
				return
			}
			go ssh.DiscardRequests(requests)
			up, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{
				Config: ssh.Config{Ciphers: []string{cipher}}, User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
				HostKeyCallback: ssh.InsecureIgnoreHostKey(), // both ends are the bench's
			})
			if err != nil {
				return
			}
			defer up.Close()
			for n := range channels {
				go pump(n, up)
			}
			_ = sc.Wait()
		}()
	}
}

// pump carries one channel.
func pump(n ssh.NewChannel, up *ssh.Client) {
	server, fromServer, err := up.OpenChannel(n.ChannelType(), n.ExtraData())
	if err != nil {
		_ = n.Reject(ssh.ConnectionFailed, "")
		return
	}
	client, fromClient, err := n.Accept()
	if err != nil {
		_ = server.Close()
		return
	}
	answer := func(from <-chan *ssh.Request, to ssh.Channel) {
		for r := range from {
			ok, _ := to.SendRequest(r.Type, r.WantReply, r.Payload)
			_ = r.Reply(ok, nil)
		}
	}
	var said sync.WaitGroup
	said.Go(func() { _, _ = io.CopyBuffer(client, server, make([]byte, 32<<10)); _ = client.CloseWrite() })
	said.Go(func() { _, _ = io.CopyBuffer(client.Stderr(), server.Stderr(), make([]byte, 32<<10)) })
	said.Go(func() { answer(fromServer, client) })
	go func() { _, _ = io.CopyBuffer(server, client, make([]byte, 32<<10)); _ = server.CloseWrite() }()
	go func() { answer(fromClient, server); _ = server.Close() }()
	said.Wait()
	_ = client.Close()
}
